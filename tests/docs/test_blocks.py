"""Every command block of the documents runs, or says above it why it can't.

A comment before a block says how: `run: here` begins a new sandbox, `run: serve`, `run: models`,
`run: pair` and `run: adapters` one with more in it, `run: on` or nothing goes on in the one before,
and `not run: why` tells the reader. The blocks of docs/guides/gpu-host.md are run by the rehearsal.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.tiny.models import TINY_MODELS
from support import lora
from support.rehearsal.guide import PAGE as REHEARSED
from support.rehearsal.namespace import find_bubblewrap
from support.rehearsal.walk import SHORT

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (not run|run): ([^\n]*?) -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S)
COMMANDS, DATA = {"bash", "fish"}, {"text", "json", "yaml"}
KINDS = {"here", "on", "serve", "models", "pair", "adapters"}
# What stands for the hub's models, and what makes a run short.
STANDS_FOR = {
    "nvidia/NVIDIA-Nemotron-Nano-9B-v2": "tiny",
    "Qwen/Qwen3-8B": "tiny-dense",
    "python examples/": f"{sys.executable} {ROOT}/examples/",
    "--search --repeat 3": "-c 1,2",
    "--target 6.0": "--target 6.0 --at-given-concurrency",
    **SHORT,
}
SERVES = re.compile(r"^nemotrt serve (?!install|stop|status|logs|repo|compose|k8s|front)[^-\n].*$")


@dataclass(frozen=True)
class Block:
    """One fenced block: its page, its mark, its language and its text."""

    page: Path
    mark: str
    kind: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(page, *one) for one in found]


ALL = [block for page in PAGES for block in blocks(page)]
SCRIPTS = [
    block
    for block in ALL
    if block.language in COMMANDS
    and block.mark != "not run"
    and block.page != REHEARSED
    and block.page.parent != ROOT
]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_each_block_has_a_language_and_runs_or_says_why_not(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(blocks(page)), "a fence that is not told"
    outside = BLOCK.sub("", text)
    assert not re.search(r"^ {4}\$? ?(nemotrt|make|pip|python|docker|curl) ", outside, re.M)
    for block in blocks(page):
        assert block.language in COMMANDS | DATA | {"python"}, block.text[:60]
        if block.mark == "run":
            assert block.kind in KINDS and block.language == "bash"
        if block.mark == "not run":
            assert len(block.kind.split()) >= 4, "the reason is for a reader"
            for path in re.findall(r"tests/[\w/.]+\w", block.kind):
                assert (ROOT / path).exists(), path
        if block.language in DATA:
            assert not re.match(r"(nemotrt \w+ [^(]|(make|pip|curl|docker) )", block.text)
        if block.language == "fish":
            assert block.mark == "not run"


def test_the_readmes_commands_are_those_of_the_manual() -> None:
    """README has no sandbox: what it shows is run by a page, by make, or by test_demo."""
    [chat, make] = [block.text for block in blocks(ROOT / "README.md")]
    lines = "\n".join(block.text for block in SCRIPTS)
    assert "nemotrt chat tiny" in chat and "nemotrt serve install" in lines
    assert "nemotrt serve tiny\n" in lines
    targets = re.findall(r"^make ([\w-]+)", make, re.M)
    text = (ROOT / "Makefile").read_text()
    contributing = [block.text for block in blocks(ROOT / "CONTRIBUTING.md")]
    targets += re.findall(r"^make ([\w-]+)", "".join(contributing), re.M)
    assert targets and all(f"\n{target}: setup" in text for target in targets)


def sandboxes() -> list[list[Block]]:
    """Return the blocks that share a folder and a server."""
    found: list[list[Block]] = []
    for block in SCRIPTS:
        is_new = not found or found[-1][0].page != block.page or block.kind in KINDS - {"on"}
        if is_new:
            found.append([])
        found[-1].append(block)
    return found


def script(run: list[Block]) -> str:
    """Return the blocks as one script: what serves goes on until the end."""
    lines = ["set -eu", "trap 'nemotrt serve stop > /dev/null 2>&1 || true; wait' EXIT"]
    for block in run:
        text = block.text.replace("\\\n", "")
        for long, short in STANDS_FOR.items():
            text = text.replace(long, short)
        for line in text.splitlines():
            if SERVES.match(line):
                port = (re.search(r"--port (\d+)", line) or [0, "9000"])[1]
                lines += [
                    f"{line.partition('#')[0]} > server.log 2>&1 &",
                    f"for i in $(seq 3000); do curl -fs localhost:{port}/health/ready > /dev/null"
                    " && break; sleep 0.2; done",
                    "curl -fsS localhost:9000/health/ready > /dev/null || cat server.log >&2",
                ]
            else:
                lines.append(re.sub(r"^curl ", "curl --fail-with-body -sS ", line))
    return "\n".join(lines) + "\n"


def test_a_server_of_a_page_goes_on() -> None:
    made = script(
        [Block(ROOT, "run", "serve", "bash", "nemotrt serve tiny\nnemotrt serve status\n")]
    )
    assert "nemotrt serve tiny > server.log 2>&1 &" in made
    assert "\nnemotrt serve status\n" in made


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize(
    "run", sandboxes(), ids=lambda run: f"{name(run[0].page)}-{run[0].text.splitlines()[0][:40]}"
)
def test_the_blocks_of_a_page_run(
    run: list[Block], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if run[0].kind == "pair":
        for folder, model in (("engine-nano", "tiny"), ("engine-qwen", "tiny-dense")):
            build_engine(TINY_MODELS[model], tmp_path / folder, BuildSpec())
    if run[0].kind == "adapters":
        (tmp_path / "adapters").mkdir()
        for seed, adapter in enumerate(("pirate", "brief")):
            folder = tmp_path / "adapters" / adapter
            lora.write_adapter(TINY_MODELS["tiny"], folder, seed, target_modules=lora.HYBRID)
    servers = tmp_path_factory.mktemp("s")  # a socket's path is short
    home = Path(sys.executable).parent
    environment = {
        "PATH": f"{home}:/usr/bin:/bin", "HOME": str(Path.home()), "LANG": "C.UTF-8",
        "XDG_CACHE_HOME": str(Path.home() / ".cache"), "NEMOTRT_RUN_DIR": str(servers),
    }  # fmt: skip
    assert shutil.which("curl")
    # A network of its own: ports are free, and nothing is fetched.
    alone = [find_bubblewrap(), "--dev-bind", "/", "/", "--unshare-net", "--die-with-parent"]
    command = [*alone, "bash", "-c", script(run)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, f"{script(run)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
