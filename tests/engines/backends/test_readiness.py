"""What `inspect` says of a machine is what opening an engine there says."""

from pathlib import Path

import pytest

from nemotrt.engines.artefact.manifest import Manifest, read_manifest
from nemotrt.engines.artefact.options import AS_BUILT
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.readiness import Check, State, check_engine, verdict
from nemotrt.engines.backends.tensorrt.run import needs as plan_needs
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import EnvironmentUnfitError
from support import movable


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = movable.write("tensorrt", TINY_MODELS["tiny"], tmp_path_factory.mktemp("e") / "e")
    return folder, read_manifest(folder)


@pytest.mark.parametrize("name", registry.names())
def test_every_backend_says_what_it_asks_of_a_machine(name, engine) -> None:
    folder, manifest = engine
    manifest = manifest.model_copy(update={"backend": name})
    backend = registry.find(name)
    checks = [c for c in check_engine(folder, manifest, AS_BUILT, verify=False) if not c.is_own]
    assert len(checks) == len(backend.needs_here(folder, manifest)) >= 1
    assert all(check.state in (State.YES, State.NO) and check.text for check in checks)
    if backend.is_cpu:
        assert verdict(checks) is State.YES
        return
    refused = next(check for check in checks if check.state is State.NO)
    if name != "tensorrt-llm":  # which lets TensorRT-LLM itself look for the GPU
        with pytest.raises(EnvironmentUnfitError) as error:
            backend.open(folder, manifest, AS_BUILT)
        assert error.value.message == refused.text


def test_a_plan_asks_for_its_gpu_its_tensorrt_and_cuda(engine, monkeypatch) -> None:
    folder, manifest = engine

    def states() -> dict[str, State]:
        found = check_engine(folder, manifest, AS_BUILT)
        assert all(check.state is State.YES for check in found if check.is_own)
        return {check.name: check.state for check in found if not check.is_own}

    def found_capability(value: str | None) -> None:
        monkeypatch.setattr(plan_needs, "local_compute_capability", lambda: value)

    monkeypatch.setattr(plan_needs, "cuda_api", lambda: None)
    monkeypatch.setattr(plan_needs, "DRIVER_LIBRARY", "libcuda-of-no-machine.so.1")
    for capability, state in ((None, State.NO), ("9.0", State.NO), ("8.6", State.YES)):
        found_capability(capability)
        assert states() == {
            "GPU": state,
            "TensorRT": State.NO,
            "cuda-python": State.YES,
            "CUDA driver": State.NO,
        }


def test_the_verdict_is_the_worst_of_its_checks() -> None:
    """By hand; nothing checked is not `yes`."""
    yes, no, unknown = (Check("x", state, "") for state in (State.YES, State.NO, State.UNCHECKED))
    assert verdict([]) is State.UNCHECKED
    assert verdict([yes, yes]) is State.YES
    assert verdict([yes, unknown]) is State.UNCHECKED
    assert verdict([unknown, no, yes]) is State.NO
