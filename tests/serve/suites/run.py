"""Runs peers' own server tests against ours, and holds the result to docs/measurements/peers.md.

usage: python tests/serve/suites/run.py [--write] [--triton] [--keep FILE] [SUITE ...]

Exit code 0: every verdict is as in the table, and none is a fault of ours.
"""

import argparse
import difflib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from table import DOCS, HEAD, kept_rows, rows, section  # noqa: E402
from verdict import Judged, Theirs, Verdict, judge  # noqa: E402

from nemotrt.build.engine_builder import BuildSpec, build_engine  # noqa: E402
from nemotrt.engines.runtime.engine import Limits  # noqa: E402
from nemotrt.engines.tiny.models import TINY_MODELS  # noqa: E402
from sources import Source, tests_of  # noqa: E402
from support.llama_source import llama_source  # noqa: E402
from support.peers import peer_python  # noqa: E402

LLAMA = llama_source()
TEST_S = 60  # longer is a hang


@dataclass(frozen=True, slots=True)
class Suite:
    """A peer's tests, and what runs them."""

    source: Source
    adapter: str  # the plugin that puts our server in the place of theirs
    environment: str
    root: str = "."  # where pytest starts, seen from the tests
    start: tuple[str, ...] = ()  # pytest's options
    chosen: tuple[str, ...] = ()  # files and folders, seen from where pytest starts


ENTRYPOINTS = "tests/entrypoints"
CHAT = f"{ENTRYPOINTS}/openai/chat_completion"
COMPLETION = f"{ENTRYPOINTS}/openai/completion"
RESPONSES = f"{ENTRYPOINTS}/openai/responses"
SUITES = {
    "llama.cpp": Suite(
        Source(
            LLAMA.PACKAGE,
            LLAMA.VERSION,
            "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45",
            "llama.cpp/tools/server/tests",
        ),
        "on_llama_cpp",
        "llama-suite",
        chosen=("unit",),
    ),
    "vLLM": Suite(
        Source(
            "vllm",
            "0.32.0",
            "d2c957d5eee3d0985012151315ddc62cbe0cd368fc96a5fc3510438d9dddf2ad",
            "tests",
        ),
        "on_vllm",
        "vllm-suite",
        root="..",
        start=("--continue-on-collection-errors", f"--confcutdir={ENTRYPOINTS}"),
        chosen=(
            f"{ENTRYPOINTS}/anthropic/test_messages.py",
            f"{CHAT}/test_chat.py",
            f"{CHAT}/test_chat_completion.py",
            f"{CHAT}/test_chat_echo.py",
            f"{CHAT}/test_chat_logit_bias_validation.py",
            f"{CHAT}/test_completion_with_function_calling.py",
            f"{CHAT}/test_enable_force_include_usage.py",
            f"{CHAT}/test_extra_content_fields.py",
            f"{CHAT}/test_include_reasoning.py",
            f"{CHAT}/test_logprob_token_ids.py",
            f"{CHAT}/test_root_path.py",
            f"{CHAT}/test_thinking_token_budget.py",
            f"{COMPLETION}/test_completion.py",
            f"{COMPLETION}/test_prompt_validation.py",
            f"{COMPLETION}/test_token_in_token_out.py",
            f"{ENTRYPOINTS}/openai/models/test_models.py",
            f"{RESPONSES}/test_basic.py",
            f"{RESPONSES}/test_errors.py",
            f"{RESPONSES}/test_function_call.py",
            f"{RESPONSES}/test_simple.py",
            f"{RESPONSES}/test_stateful.py",
            f"{RESPONSES}/test_structured_output.py",
            f"{ENTRYPOINTS}/openai/test_chunked_prompt.py",
            f"{ENTRYPOINTS}/openai/test_openai_schema.py",
            f"{ENTRYPOINTS}/openai/test_return_token_ids.py",
            f"{ENTRYPOINTS}/openai/test_return_tokens_as_ids.py",
        ),
    ),
}


def run(name: str, engine: Path, options: str, kept: Path | None) -> list[Judged]:
    """Run one suite and return its tests' verdicts.

    Raises:
        subprocess.CalledProcessError: its environment can't be made.
    """
    suite = SUITES[name]
    tests = tests_of(suite.source)
    python = peer_python(suite.environment)
    with tempfile.TemporaryDirectory() as folder:
        record = kept or Path(folder) / "record.jsonl"
        record.write_text("")
        env = os.environ | {
            "PYTHONPATH": f"{HERE}{os.pathsep}.",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SUITE_RECORD": str(record.absolute()),
            "SUITE_PYTHON": sys.executable,
            "SUITE_ENGINE": str(engine),
            "SUITE_OPTIONS": options,
            "HF_HUB_OFFLINE": "1",
        }
        command = [python, "-m", "pytest", "-q", "-p", "recorded", "-p", suite.adapter]
        command += [
            "-p",
            "no:cacheprovider",
            "--tb=short",
            f"--timeout={TEST_S}",
            *suite.start,
            *suite.chosen,
        ]
        subprocess.run(command, cwd=tests / suite.root, env=env, check=False, stdout=sys.stderr)
        theirs = Theirs.of(name)
        return [judge(json.loads(line), theirs) for line in record.read_text().splitlines()]


def differences(name: str, judged: list[Judged]) -> list[str]:
    """Return what is wrong: faults, and verdicts that are not the table's."""
    found = [f"{one.test}: {one.why}" for one in judged if one.verdict is Verdict.FAULT]
    told = difflib.unified_diff(
        kept_rows(name), rows(judged), "docs/measurements/peers.md", name, "", "", 0, ""
    )
    return found + list(told) + ([] if judged else [f"{name}: no test has run"])


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{', '.join(SUITES)}; or all")
    parser.add_argument("--write", action="store_true", help="write docs/measurements/peers.md")
    parser.add_argument("--triton", action="store_true", help="serve by Triton")
    parser.add_argument("--keep", type=Path, help="keep the plugin's records of one suite here")
    args = parser.parse_args()
    args.suites = args.suites or list(SUITES)
    if unknown := set(args.suites) - set(SUITES):
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    if args.write and set(args.suites) != set(SUITES):
        parser.error("--write writes the whole table: name no suite")
    if args.keep and len(args.suites) != 1:
        parser.error("--keep keeps the records of one suite: name it")
    options = "" if args.triton else "--no-triton"
    limits = Limits(max_batch_size=8, max_seq_len=4096, chunk_tokens=256)
    judged = {}
    with tempfile.TemporaryDirectory() as folder:
        engine = Path(folder) / "engine"
        build_engine(TINY_MODELS["tiny"], engine, BuildSpec(limits=limits))
        for name in args.suites:
            judged[name] = run(name, engine, options, args.keep)
    if args.write:
        told = [section(name, SUITES[name].source.version, one) for name, one in judged.items()]
        DOCS.write_text("\n\n".join([HEAD.rstrip(), *told]) + "\n", "utf-8")
    wrong = [line for name, one in judged.items() for line in differences(name, one)]
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
