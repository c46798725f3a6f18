"""Every mount, variable and device that our files give a container, taken away one at a time.

What is taken comes from the files themselves. Without a part the server fails with a line that
names the part or its cure; a part without which it serves is none that the file may have, unless
its value is the user's own.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from nemotrt.needs import CUDA_13_DRIVER
from support.rehearsal import containers
from support.rehearsal.image import ROOT
from support.rehearsal.machine import HOME
from support.rehearsal.namespace import Access, Mount, Namespace
from support.rehearsal.parts import Part, Service, composed, is_passed_on, parts_of, pod, without
from support.rehearsal.trials import (
    CHECK,
    DRIVER,
    GENERATE,
    check_cure,
    has_cure,
    run,
    served,
    up,
    with_driver,
    without_file,
)
from support.rehearsal.walk import Walk

SERVICES = {
    "compose": composed(Path(HOME, "engine-nano"), Path(HOME, "checkpoint-nano")),
    "pod": pod(Path(HOME), "engine-nano", "checkpoint-nano"),
}
# What is read where the part's own name says nothing to who lacks it.
CURES = {
    Part("GPU", "nvidia"): DRIVER,
    Part("memory", "/run/nemotrt"): "set NEMOTRT_RUN_DIR",
    Part("memory", "/tmp"): "--tmpfs /tmp",
    Part("mount", "/checkpoint"): "A container has the folder where it is mounted",
    Part("mount", "/engine"): "A container has the folder where it is mounted",
}
# Docker and Kubernetes give 64 MB of it in any case: enough to serve, not for TensorRT-LLM's
# processes, which talk through it. What is too little is tried in test_removals.py.
PACKED = f"{HOME}/packed-nano"
GENERATE_THERE = GENERATE.replace("packed-nano", PACKED)
RAISED = Part("shared memory", "/dev/shm")
DOCKERFILE = ROOT / "serve/deploy/Dockerfile"


def every() -> list[Any]:
    """Return the parts of each service."""
    return [
        pytest.param(name, part, id=f"{name}-{part.name}")
        for name, service in SERVICES.items()
        for part in parts_of(service)
    ]


def test_parts_are_found() -> None:
    """By hand: what a file has today; a part that is new is tried by itself."""
    told = {name: {str(part) for part in parts_of(service)} for name, service in SERVICES.items()}
    common = {
        "mount /engine",
        "mount /checkpoint",
        "memory /tmp",
        "memory /run/nemotrt",
        "shared memory /dev/shm",
        "GPU nvidia",
    }
    assert common < told["compose"] and common == told["pod"]
    passed_on = {part.name for part in parts_of(SERVICES["compose"]) if part.kind == "variable"}
    assert all(is_passed_on(SERVICES["compose"], Part("variable", name)) for name in passed_on)
    assert CURES.keys() <= {part for service in SERVICES.values() for part in parts_of(service)}


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize("name", SERVICES)
def test_whole_it_serves(name: str, apart: Namespace, sent: Walk) -> None:
    up(apart, sent.kit.home("host"), {"services": {"nemotrt": SERVICES[name]}}).check()


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize(("name", "part"), every())
def test_without_one_part(name: str, part: Part, apart: Namespace, sent: Walk) -> None:
    service: Service = SERVICES[name]
    done = up(apart, sent.kit.home("host"), {"services": {"nemotrt": without(service, part)}})
    if is_passed_on(service, part) or part == RAISED:
        done.check()
    else:
        check_cure(done, CURES.get(part, part.name))


def image_variables() -> dict[str, str]:
    """Return the variables of the image that runs plans, by its Dockerfile."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    lines = re.findall(r"^ENV (.*)$", text, re.MULTILINE)
    return dict(word.split("=", 1) for line in lines for word in line.split())


# What NVIDIA's toolkit brings without its variable; its defaults are those of the image.
TOOLKITS = ("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_REQUIRE_CUDA")


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize("name", image_variables())
def test_without_a_variable_of_the_image(name: str, apart: Namespace, sent: Walk) -> None:
    """As a host sees it that has the image's packages and folders."""
    kit = sent.kit
    if name in TOOLKITS:
        match name:
            case "NVIDIA_VISIBLE_DEVICES":
                seen, cure = apart.without_mount("/driver"), DRIVER
            case "NVIDIA_DRIVER_CAPABILITIES":  # utility without compute
                seen, cure = without_file(apart, kit, "libcuda.so.1"), "compute,utility"
            case _:
                seen = with_driver(apart, kit, "old", "570.211.01", 12080)
                cure = f"CUDA 13 needs driver {CUDA_13_DRIVER} or later"
        check_cure(run(seen, served()), cure)
        return
    assert containers.IMAGE_ENVIRONMENT[name] == image_variables()[name]
    seen = apart.with_mounts({"/run/nemotrt": Mount(Access.MEMORY, mode="0700")})
    seen = seen.with_variables(**containers.IMAGE_ENVIRONMENT).without_variable(name)
    match name:
        case "HOME":  # nothing is lost but what is compiled once
            assert has_cure(run(seen, f"{GENERATE_THERE}").check(), "Set XDG_CACHE_HOME")
        case "NEMOTRT_RUN_DIR":  # the folder is the usual one, of this user alone
            assert (
                "/tmp/nemotrt-1000" in run(seen, f"{served(PACKED)}; ls -d /tmp/*").check().output
            )
        case _:  # PATH: Docker itself says that the program is not found
            assert name == "PATH"


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize("script", [GENERATE, CHECK, served()], ids=["generate", "check", "serve"])
def test_without_one_of_the_hosts_own(script: str, whole: Namespace) -> None:
    """Beside the driver: what a host's place or variable is for is written elsewhere, or said."""
    run(whole, script).check()
    for name in ("HOME", "PATH"):
        run(whole.without_variable(name), script).check()
    for target in ("/tmp", "/dev/shm"):
        done = run(whole.without_mount(target), script)
        assert done.code == 0 or has_cure(done, target), done.text
