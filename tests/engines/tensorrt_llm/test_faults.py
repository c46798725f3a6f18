"""What goes wrong in TensorRT-LLM, at its start, or in a bundle."""

import dataclasses
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.backends.tensorrt_llm import scheduler as scheduler_module
from nemotrt.engines.backends.tensorrt_llm.options import TensorRTLLMOptions
from nemotrt.engines.backends.tensorrt_llm.process.interpreter import PYTHON_VARIABLE
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.request import FinishReason, Request, Update
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ChildProcessFailedError
from support.llm_bundle import LIMITS, PROMPT, SHORT, run
from support.other_world import World


@pytest.mark.parametrize("kind", ["request", "fatal"])
def test_a_request_s_fault_is_its_own_and_any_other_is_fatal(
    kind: str, opened: OpenEngine, world: World
) -> None:
    scheduler = opened.scheduler()
    updates: list[Update] = []
    with world.broken(fault=kind):
        scheduler.submit(Request("r", PROMPT, SHORT))
        if kind == "fatal":
            with pytest.raises(ChildProcessFailedError, match="out of memory"):
                while True:
                    scheduler.step()
            return
        while not scheduler.is_idle:
            updates += scheduler.step()
        assert updates == [Update("r", finish_reason=FinishReason.ERROR, error="too long")]


def test_an_llm_that_gives_nothing_is_taken_for_dead(
    opened: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = opened.scheduler()
    scheduler.submit(Request("r", PROMPT, SHORT))
    monkeypatch.setattr(scheduler._process, "take", lambda timeout_s: [])  # type: ignore[attr-defined]
    scheduler.step()
    later = time.monotonic() + scheduler_module.STALL_S + 1
    monkeypatch.setattr(scheduler_module.time, "monotonic", lambda: later)
    with pytest.raises(ChildProcessFailedError, match="gave no token for 120 s"):
        scheduler.step()
    monkeypatch.undo()
    scheduler.cancel("r")


def test_a_checkpoint_that_has_changed_is_not_served(tmp_path: Path) -> None:
    import shutil

    source, target = tmp_path / "c", tmp_path / "b"
    shutil.copytree(TINY_MODELS["tiny"], source)
    build_engine(source, target, BuildSpec("tensorrt-llm", "a10g", limits=LIMITS))
    text = (source / "config.json").read_text()
    (source / "config.json").write_text(text.replace('"pad_token_id": 12', '"pad_token_id": 0'))
    with pytest.raises(ArtefactError, match="has changed since"):
        open_engine(target)
    shutil.rmtree(source)
    with pytest.raises(ArtefactError, match="is missing"):
        open_engine(target)


def test_arguments_that_are_not_tensorrt_llm_s_are_found_at_opening(
    bundle: Path, tmp_path: Path
) -> None:
    import shutil

    target = tmp_path / "b"
    shutil.copytree(bundle, target)
    args = yaml.safe_load((target / "llm_args.yaml").read_text())
    args["kv_cache_config"]["mamba_ssm_cache_dtype"] = "float64"
    (target / "llm_args.yaml").write_text(yaml.safe_dump(args))
    with pytest.raises(ArtefactError, match=r"kv_cache_config\.mamba_ssm_cache_dtype"):
        open_engine(target, verify=False)


def test_what_tensorrt_llm_says_against_a_start_is_passed_on(tmp_path: Path, world: World) -> None:
    """Two GPUs where the LLM sees one."""
    target = tmp_path / "b"
    spec = BuildSpec("tensorrt-llm", "a10g", limits=LIMITS, options=TensorRTLLMOptions(tp_size=2))
    build_engine(TINY_MODELS["tiny"], target, spec)
    with world.chosen():
        found = CliRunner().invoke(main, ["generate", str(target), "--prompt-ids", "1"])
    assert found.exit_code == 3
    assert "TensorRT-LLM 1.2.1 can't start" in found.stderr
    assert "Only 1 GPUs are available" in found.stderr


def test_generate_runs_a_bundle(bundle: Path, cpu: OpenEngine, world: World) -> None:
    ids = ",".join(map(str, PROMPT))
    with world.chosen() as patch:
        patch.delenv(PYTHON_VARIABLE)
        command = ["generate", str(bundle), "--prompt-ids", ids]
        command += ["--tensorrt-llm-python", str(world.python)]
        found = CliRunner().invoke(main, command)
    assert found.exit_code == 0, found.output
    assert found.stdout.strip() == str(run(cpu, max_tokens=91)["text"]).strip()


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_log_probabilities_that_are_not_finite_end_their_request(
    bad: str, opened: OpenEngine, world: World
) -> None:
    """They are all that shows of logits that are not; the LLM goes on with the others."""
    scheduler = opened.scheduler()
    params = SamplingParams(max_tokens=6, ignore_eos=True)
    updates: list[Update] = []
    with world.broken(logprob=bad):
        scheduler.submit(Request("bad", PROMPT, dataclasses.replace(params, logprobs=1)))
        scheduler.submit(Request("good", PROMPT, params))
        while not scheduler.is_idle:
            updates += scheduler.step()
    bad_end = next(u for u in updates if u.request_id == "bad" and u.finish_reason)
    assert (bad_end.finish_reason, bad_end.error_code) == ("error", "logits_not_finite")
    assert sum(len(u.tokens) for u in updates if u.request_id == "good") == 6
