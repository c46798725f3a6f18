"""The limits that an engine is built for, when the user leaves some of them out."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from nemotrt.build.engine_builder import DEFAULT_LIMITS, BuildSpec
from nemotrt.build.given_limits import GivenLimits, read_limits
from nemotrt.build.plan_limits import OwnLimits
from nemotrt.build.planned_limits import resolve_limits
from nemotrt.cli import main
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.planning import OwnRuntime
from nemotrt.engines.backends.tensorrt.graph.options import MambaLayers, TensorRTOptions
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.errors import ConfigError, NoFeasiblePlanError
from nemotrt.profiles.planning.answers.as_built import MAX_SLOTS
from support.sparse_checkpoint import write_sparse

BF16, MIB = Precision.BF16, 2**20


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The 9B's names and shapes."""
    folder = tmp_path_factory.mktemp("nano") / "c"
    return open_checkpoint(write_sparse(folder, "nemotron-nano-9b-v2", "bf16"))


def own_limits(checkpoint: Checkpoint, gpu: str, precision: Precision) -> OwnLimits:
    backend = registry.find("tensorrt")
    how = backend.planning(backend.options_type())
    assert isinstance(how, OwnRuntime)
    return OwnLimits(checkpoint, gpu, precision, how)


def test_as_many_sequences_as_fit(nano: Checkpoint) -> None:
    """By hand, for an A10G: 22587 MiB, of which 95 % are for an engine.

    Weights take 16956 MiB; a sequence 384 MiB of keys and values and, on each of two sides,
    135 MiB of SSM state and 1.9 MiB of convolution windows. The copies of the cache that
    attention reads take 480 MiB, the rest of the scratch about half of that again.
    """
    own = own_limits(nano, "a10g", BF16)
    limits = own.planned(GivenLimits())
    assert limits == Limits(max_batch_size=5, max_seq_len=8192 + 16384, chunk_tokens=512)
    left = 0.95 * 22587 - 16956 - 1.5 * 480
    assert limits.max_batch_size == left // (384 + 2 * (135 + 1.9))
    assert own.missing_bytes(limits) == 0
    more = dataclasses.replace(limits, max_batch_size=6)
    assert 0 < own.missing_bytes(more) < 658 * MIB


def test_states_that_are_updated_in_place_leave_room_for_more(nano: Checkpoint) -> None:
    """By hand, as above, with one side."""
    spec = BuildSpec("tensorrt", "a10g", options=TensorRTOptions(mamba=MambaLayers.PLUGIN))
    limits = resolve_limits(nano, spec, BF16, GivenLimits()).limits
    assert limits.max_batch_size == (0.95 * 22587 - 16956 - 1.5 * 480) // (384 + 135 + 1.9) == 7


def test_whole_prompts_are_given_their_room(nano: Checkpoint) -> None:
    """By hand, as above: with a 16-bit state a sequence takes 384 + 67.5 + 1.9 MiB.

    A prompt's token takes 300,800 bytes in the Mamba block: in_proj's 22656 outputs and the
    convolution's 12288 in bfloat16, twice 10240 channels and twice 128 heads of a 128-token chunk
    in float32, and the residual stream twice. 1.2 runs one prompt at a time and keeps a fifth of
    the memory free; Edge-LLM has room for a prompt of every sequence.
    """
    sequence, token_mib = 384 + 67.5 + 1.9, 300_800 / MIB
    left = 0.95 * 22587 - 16956

    def limits(backend: str, *given: int | None) -> Limits:
        return resolve_limits(nano, BuildSpec(backend, "a10g"), BF16, GivenLimits(*given)).limits

    for prompt in (8192, 4000, 1000):
        packed = limits("tensorrt-llm-1.2", None, None, prompt)
        fitting = (left - prompt * token_mib) // sequence
        assert packed == Limits(int(0.8 * fitting), 24576, prompt)
        together = limits("edge-llm", None, None, prompt)
        fitting = left // (sequence + prompt * token_mib)
        assert together == Limits(int(fitting), 24576, prompt)
    for backend in ("tensorrt-llm-1.2", "edge-llm"):
        assert limits(backend).chunk_tokens == 8192
        assert limits(backend, 3, 512) == Limits(3, 512, 511)
        assert limits(backend, 3, 512, 64) == Limits(3, 512, 64)
        assert limits(backend, 3, 512, 512) == Limits(3, 512, 512)
        with pytest.raises(ConfigError, match=r"chunk_tokens \(513\) exceeds max_seq_len"):
            limits(backend, 3, 512, 513)


def test_a_prompt_that_does_not_fit_is_no_feasible_plan(nano: Checkpoint) -> None:
    with pytest.raises(NoFeasiblePlanError, match="GiB of activations"):
        resolve_limits(nano, BuildSpec("edge-llm", "a10g"), BF16, GivenLimits(None, None, 24000))


def test_a_larger_gpu_a_smaller_precision_and_shorter_sequences_take_more(nano: Checkpoint) -> None:
    def batch(gpu: str, precision: Precision, **given: int) -> int:
        return own_limits(nano, gpu, precision).planned(GivenLimits(**given)).max_batch_size

    assert batch("a100", BF16) > 10 * batch("a10g", BF16)
    assert batch("a10g", Precision.INT8_WO) > 2 * batch("a10g", BF16)
    assert batch("a10g", BF16, max_seq_len=4096) > batch("a10g", BF16)
    assert batch("h200", Precision.FP8, max_seq_len=1024) == MAX_SLOTS


def test_what_is_named_stays(nano: Checkpoint) -> None:
    def limits(backend: str, gpu: str | None, *given: int | None) -> Limits:
        return resolve_limits(nano, BuildSpec(backend, gpu), BF16, GivenLimits(*given)).limits

    assert limits("tensorrt", "a10g", 2, 1000, 64) == Limits(2, 1000, 64)
    assert limits("tensorrt", "a100", None, 100).chunk_tokens == 100
    assert limits("native", None, None, 100) == Limits(8, 100, 100)
    assert limits("onnxruntime", None) == DEFAULT_LIMITS


def test_nothing_fits(nano: Checkpoint) -> None:
    with pytest.raises(NoFeasiblePlanError, match=r"131072 tokens needs .* on a10g"):
        own_limits(nano, "a10g", BF16).planned(GivenLimits(None, 131072, 2048))


def plan_limits_file(path: Path, **changes: Any) -> Path:
    """Write the planner's own limits file, with some keys changed."""
    result = CliRunner().invoke(
        main, ["plan", "nemotron-nano-9b-v2", "--gpu", "a10g", "--write-limits", str(path)]
    )
    assert result.exit_code == 0, result.stderr
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    return path


def test_a_limits_file_is_taken(tmp_path: Path) -> None:
    path = plan_limits_file(tmp_path / "limits.yaml")
    planned = yaml.safe_load(path.read_text())
    file = read_limits(path, "a10g", BF16, "tensorrt")
    found = GivenLimits(max_seq_len=8192).or_else(file.given(has_chunk=False))
    assert found == GivenLimits(planned["max_batch_size"], 8192, None)
    assert file.given(has_chunk=True).chunk_tokens == planned["max_num_tokens"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu": "a100"}, "planned for a100, not for a10g"),
        ({"precision": "fp8"}, "planned for fp8, not for bf16"),
        ({"backend": "tensorrt-llm"}, "planned for backend tensorrt-llm, not for tensorrt"),
        ({"tp": 2}, "planned for tp 2, not for 1"),
        ({"max_seq_len": 0}, "max_seq_len"),
        ({"max_sequence": 5}, "max_sequence"),
    ],
)
def test_a_file_for_something_else_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = plan_limits_file(tmp_path / "limits.yaml", **changes)
    with pytest.raises(ConfigError, match=message):
        read_limits(path, "a10g", BF16, "tensorrt")


def test_the_command_says_what_it_chose_and_warns(tmp_path: Path) -> None:
    command = ["build", "tiny", "--gpu", "a10g", "-o", str(tmp_path / "e"), "--dry-run"]
    result = CliRunner().invoke(main, command)
    assert f"Planned, not measured: {MAX_SLOTS} sequences of 24576 tokens fit" in result.stderr
    result = CliRunner().invoke(main, [*command, "--max-batch-size", "100000"])
    assert result.exit_code == 0
    assert "Warning: 100000 sequences" in result.stderr and "than a10g has" in result.stderr
    file = tmp_path / "limits.yaml"
    plan_limits_file(file)
    result = CliRunner().invoke(main, [*command, "--limits", str(file)])
    assert result.exit_code == 0 and "Planned" not in result.stderr
