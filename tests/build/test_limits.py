"""The limits that an engine is built for, when the user leaves some of them out."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemotrt.build.engine_builder import DEFAULT_LIMITS, BuildSpec
from nemotrt.build.given_limits import read_limits
from nemotrt.build.limit_options import GivenLimits
from nemotrt.build.plan_limits import OwnLimits
from nemotrt.build.planned_limits import resolve_limits, two_sides_note
from nemotrt.cli import main
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.protocol.planning import OwnRuntime
from nemotrt.engines.backends.tensorrt.graph.options import MambaLayers, TensorRTOptions
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.errors import ConfigError, NoFeasiblePlanError
from nemotrt.profiles.planning.answers.as_built import MAX_SLOTS
from nemotrt.profiles.planning.answers.limits import limits_yaml
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy
from nemotrt.profiles.planning.answers.plan import make_plan
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

    Weights take 16956 MiB; a sequence 384 MiB of keys and values, 135 MiB of SSM state and 1.9 MiB
    of convolution windows, and a 27th of these as a spare. A prompt call writes a sequence's states
    apart. The copies of the cache that attention reads take 480 MiB, the rest of the scratch, for a
    chunk of 320 tokens, less than a tenth of that. With two sides 5 sequences fit.
    """
    own = own_limits(nano, "a10g", BF16)
    limits = own.planned(GivenLimits())
    assert limits == Limits(max_batch_size=7, max_seq_len=8192 + 16384, chunk_tokens=320)
    left = 0.95 * 22587 - 16956 - 1.1 * 480 - 136.9
    assert limits.max_batch_size == left // (384 + 136.9 * 28 / 27)
    assert own.missing_bytes(limits) == 0
    more = dataclasses.replace(limits, max_batch_size=8)
    assert 0 < own.missing_bytes(more) < 526 * MIB
    two_sides = dataclasses.replace(own, runtime=OwnRuntime("tensorrt", StateLayout.TWO_SIDES))
    assert two_sides.planned(GivenLimits()).max_batch_size == 5


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


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["a10g", "a100", "h100", "l4"]),
    st.integers(1, 30_000),
    st.integers(1, 30_000),
    st.floats(0.85, 1.0),
    st.sampled_from([None, 1, 64, 100, 320, 512, 2048, 8192]),
    st.sampled_from([0.0, 0.5]),
)
def test_a_file_that_plan_wrote_always_fits(
    nano: Checkpoint,
    gpu: str,
    isl: int,
    osl: int,
    share: float,
    num_tokens: int | None,
    reserve_gib: float,
) -> None:
    """Of a plan with any lengths, memory, reserve and calls: no warning, no refusal."""
    deployment = deploy(
        DeploymentOptions(
            str(nano.path),
            gpu,
            isl=isl,
            osl=osl,
            memory_utilization=share,
            reserve_gib=reserve_gib,
            max_num_tokens=num_tokens,
        )
    )
    try:
        plan = make_plan(deployment)
    except NoFeasiblePlanError:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "limits.yaml"
        path.write_text(limits_yaml(plan))
        said: list[str] = []
        spec = resolve_limits(
            nano, BuildSpec("tensorrt", gpu), BF16, GivenLimits(), path, say=said.append
        )
    assert said == []
    assert spec.limits.max_batch_size == plan.batch_size
    assert spec.limits.max_seq_len == isl + osl


def test_a_file_of_another_backend_or_model_is_refused(nano: Checkpoint, tmp_path: Path) -> None:
    path = plan_limits_file(tmp_path / "limits.yaml")
    command = ["build", str(nano.path), "-o", str(tmp_path / "e"), "--dry-run", "--gpu", "a10g"]
    for backend in ("tensorrt-llm", "tensorrt-llm-1.2", "edge-llm"):
        result = CliRunner().invoke(main, [*command, "--backend", backend, "--limits", str(path)])
        assert result.exit_code == 2
        assert f"planned for backend tensorrt, not for {backend}" in result.stderr
    path.write_text(path.read_text().replace("max_batch_size: 7", "max_batch_size: 70"))
    with pytest.raises(NoFeasiblePlanError, match=r"was planned for nemotron-nano-9b-v2\. Plan"):
        resolve_limits(nano, BuildSpec("tensorrt", "a10g"), BF16, GivenLimits(), path)
    said: list[str] = []
    own = GivenLimits(max_batch_size=80)  # the user's own word: a warning
    resolve_limits(nano, BuildSpec("tensorrt", "a10g"), BF16, own, path, say=said.append)
    assert "80 sequences" in said[0]


def test_two_sides_are_told_with_what_fits(nano: Checkpoint) -> None:
    spec = BuildSpec("tensorrt", "a10g", limits=Limits(7, 24576, 320))
    said = two_sides_note(nano, spec, BF16, "a kernel may still run")
    assert said.startswith("Warning: states take two sides, since a kernel may still run. 7 seq")
    assert said.endswith("more than a10g has: build again with --max-batch-size 5.")
    few = dataclasses.replace(spec, limits=Limits(2, 24576, 320))
    assert two_sides_note(nano, few, BF16, "x") == "Warning: states take two sides, since x."
    long = dataclasses.replace(spec, limits=Limits(1, 131072, 2048))
    assert "build again with a smaller --max-seq-len" in two_sides_note(nano, long, BF16, "x")
