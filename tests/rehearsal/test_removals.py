"""Whatever is taken from the rehearsal's host, a line of what fails then names the cure."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from support.rehearsal import driver
from support.rehearsal.machine import HOME, SHARED_MEMORY_BYTES
from support.rehearsal.namespace import SHARED_MEMORY, Access, Mount, Namespace
from support.rehearsal.trials import (
    CHECK,
    DRIVER,
    EXTRAS,
    GENERATE,
    PROFILE,
    check_cure,
    run,
    up,
    with_mount,
    without_file,
    without_package,
)
from support.rehearsal.walk import Walk

SERVE = "timeout 120 nemotrt serve packed-nano --free-ports"
IN_A_TERMINAL = "python3 -c 'import pty, sys; sys.exit(pty.spawn({}) >> 8)' >&2"
BASE = "is not installed: pip install nemotrt"


def later(*values: str) -> list[Any]:
    """Return parameters that the slow tests have: one of each kind is enough for each change."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.mark.parametrize(
    "script",
    [GENERATE, *later(CHECK, PROFILE)],
    ids=["generate", "check", "profile"],
)
@pytest.mark.parametrize(
    "what", ["libcuda.so.1", *later("driver", "libnvidia-ml.so.1", "LD_LIBRARY_PATH")]
)
def test_without_the_driver_or_a_part(whole: Namespace, sent: Walk, what: str, script: str) -> None:
    """A container's toolkit brings libcuda and NVML by its capabilities, each for itself."""
    if what == "driver":
        seen = whole.without_mount(str(driver.PLACE))
    elif what == "LD_LIBRARY_PATH":
        seen = whole.without_variable(what)
    else:
        seen = without_file(whole, sent.kit, what)
    done = run(seen, script)
    check_cure(done, DRIVER)
    assert done.code == 3


def test_inspect_and_doctor_say_so_too(whole: Namespace, sent: Walk) -> None:
    seen = without_file(whole, sent.kit, "libcuda.so.1")
    assert (
        "no        CUDA driver  libcuda.so.1 is not here. Install"
        in run(seen, "nemotrt inspect packed-nano").output
    )
    seen = without_file(whole, sent.kit, "libnvidia-ml.so.1")
    done = run(seen, "nemotrt doctor --need 'measure the GPU'")
    check_cure(done, "the NVIDIA driver is not installed (no libnvidia-ml.so.1)")


# A package of ours: what needs it, and what is to be read then.
NEEDED_BY: dict[str, tuple[str, str]] = {
    "cuda-python": (GENERATE, "pip install 'cuda-python>=13,<14'"),
    "httptools": (SERVE, "pip install 'nemotrt[serve]'"),
    "huggingface-hub": ("HF_HUB_OFFLINE=0 nemotrt inspect one/model", BASE),
    "llguidance": ("nemotrt doctor --need 'OpenAI endpoint'", "pip install 'nemotrt[serve]'"),
    "numba": ("nemotrt quantize tiny --recipe int8-wo -o /tmp/quantized", BASE),
    "nvidia-cuda-nvrtc": ("nemotrt check --kernels", "'nvidia-cuda-nvrtc>=13,<14'"),
    "prometheus-client": (PROFILE, BASE),
    "prompt-toolkit": (IN_A_TERMINAL.format('["nemotrt", "chat", "packed-nano"]'), BASE),
    "rich": ("nemotrt plan tiny --gpu a10g", BASE),
    "starlette": (SERVE, "pip install 'nemotrt[serve]'"),
    "tensorrt-rtx-cu13-bindings": (GENERATE, "pip install 'nemotrt[rtx-run]'"),
    "tensorrt-rtx-cu13-libs": (GENERATE, "pip install 'nemotrt[rtx-run]'"),
    "tritonclient": (SERVE, "pip install 'nemotrt[serve]'"),
    "uvicorn": (SERVE, "pip install 'nemotrt[serve]'"),
}


def own_packages() -> set[str]:
    """Return what the guide's extras bring of their own: the base installation's too."""
    found = [Requirement(text) for text in metadata.requires("nemotrt") or ()]
    named = [
        each.name
        for each in found
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in EXTRAS)
    ]
    return set(named)


QUICK = ("cuda-python", "tensorrt-rtx-cu13-libs", "starlette")


@pytest.mark.parametrize("package", [*QUICK, *later(*sorted(own_packages() - set(QUICK)))])
def test_without_a_package(package: str, whole: Namespace, sent: Walk) -> None:
    script, cure = NEEDED_BY.get(package, (f"{GENERATE} --chat", BASE))
    check_cure(run(without_package(whole, sent.kit, package), script), cure)


def test_a_package_that_is_named_is_one() -> None:
    assert set(NEEDED_BY) | set(QUICK) <= own_packages()


def test_without_tritons_runtime(whole: Namespace) -> None:
    seen = replace(whole, environment=whole.environment | {"NEMOTRT_TRITON_RUNTIME": "/nowhere"})
    check_cure(run(seen, SERVE), "install it with: nemotrt serve install")


def test_without_room_in_shared_memory(whole: Namespace) -> None:
    small = Mount(Access.MEMORY, None, 8 << 20, "1777")
    assert whole.mounts[SHARED_MEMORY].num_bytes == SHARED_MEMORY_BYTES
    check_cure(run(with_mount(whole, SHARED_MEMORY, small), SERVE), "--shm-size 1g")


def test_without_a_home(whole: Namespace) -> None:
    """The cache has no place; the line says which variable gives it one."""
    seen = replace(whole.without_mount(HOME), folder="/")
    check_cure(run(seen, "nemotrt doctor --need cache"), "set XDG_CACHE_HOME")


def test_without_the_hub(whole: Namespace) -> None:
    """A checkpoint that is not in the cache, without a network, and by --offline."""
    seen = replace(whole, environment=whole.environment | {"HF_HOME": "/tmp/empty"})
    name = "nvidia/NVIDIA-Nemotron-Nano-9B-v2"
    check_cure(run(seen, f"nemotrt inspect {name} --offline"), "without --offline")
    seen = seen.without_variable("HF_HUB_OFFLINE")
    check_cure(run(seen, f"nemotrt inspect {name}"), "check the network")


@dataclass(frozen=True)
class Compose:
    """A change of a compose file's service, and the cure that is read then."""

    change: Callable[[dict[str, Any]], object]
    cure: str


def without_weights(service: dict[str, Any]) -> None:
    """Take the checkpoint's mount away, and the option that says where it is."""
    service["volumes"].pop(1)
    place = service["command"].index("--checkpoint")
    del service["command"][place : place + 2]


COMPOSE = {
    "engine": Compose(
        lambda s: s["volumes"].pop(0), "A container has the folder where it is mounted"
    ),
    "weights": Compose(lambda s: s["volumes"].pop(1), "A container has the folder where it is"),
    "weights and option": Compose(without_weights, "(--checkpoint PATH or "),
    "tmp": Compose(lambda s: s["tmpfs"].remove("/tmp"), "--tmpfs /tmp"),
    "run folder": Compose(lambda s: s["tmpfs"].pop(1), "set NEMOTRT_RUN_DIR"),
    "shared memory": Compose(lambda s: s.update(shm_size="8mb"), "--shm-size 1g"),
    "GPU": Compose(lambda s: s.pop("deploy"), DRIVER),
}


@pytest.mark.triton
@pytest.mark.parametrize("what", ["weights", *later(*sorted(COMPOSE.keys() - {"weights"}))])
def test_without_a_part_of_the_compose_file(
    what: str, whole: Namespace, sent: Walk, compose_file: dict[str, Any]
) -> None:
    changed = yaml.safe_load(yaml.safe_dump(compose_file))
    COMPOSE[what].change(changed["services"]["nemotrt"])
    check_cure(up(whole, sent.kit.home("host"), changed), COMPOSE[what].cure)


@pytest.mark.slow
@pytest.mark.triton
def test_what_the_image_says_too_may_be_left_out(
    whole: Namespace, sent: Walk, compose_file: dict[str, Any]
) -> None:
    """Docker's own 64 MB do for one model; the variables have no values."""
    changed = yaml.safe_load(yaml.safe_dump(compose_file))
    service = changed["services"]["nemotrt"]
    service["environment"].clear()
    del service["shm_size"]
    up(whole, sent.kit.home("host"), changed).check()
