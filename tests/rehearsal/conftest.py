"""The folders of the rehearsal on an A10G, and what a laptop sent to it: made once a session."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from support.rehearsal.machine import host
from support.rehearsal.namespace import Namespace
from support.rehearsal.trials import EXTRAS, run
from support.rehearsal.walk import Kit, Walk, of


@pytest.fixture(scope="session")
def new_kit(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Kit]:
    return lambda gpu: Kit(tmp_path_factory.mktemp(f"rehearsal-{gpu}"), gpu)


@pytest.fixture(scope="session")
def sent(new_kit: Callable[[str], Kit], triton_runtime: None) -> Walk:
    """The laptop's part: limits, plans and packed engines, which then lie in the host's home."""
    walk = Walk(new_kit("a10g"))
    with walk.laptop() as laptop:
        for line in of("5", "--write-limits"):
            walk.do(laptop, line)
        walk.make_limits_small("laptop")
        for line in of("6a")[:5]:
            walk.do(laptop, line)
    return walk


@pytest.fixture(scope="session")
def triton_runtime() -> Iterator[None]:
    """The runtime must be there or installable: a test that needs it never skips."""
    from nemotrt.serve.triton.install import install_runtime

    install_runtime()
    yield


@pytest.fixture(scope="session")
def whole(sent: Walk) -> Namespace:
    """The host with all that it needs: nothing is asked of a hub any more."""
    kit = sent.kit
    seen = host(kit.image(*EXTRAS), kit.home("host"), gpu=kit.driver, others={})
    return seen.with_variables(HF_HUB_OFFLINE="1")


@pytest.fixture(scope="session")
def apart(whole: Namespace, sent: Walk) -> Namespace:
    """The same host, where `engine-nano` leaves its weights in `checkpoint-nano`."""
    home = sent.kit.home("host")
    if not (home / "engine-nano").is_dir():
        shutil.copytree(sent.kit.home("laptop") / "engine-nano", home / "engine-nano")
        shutil.copytree(home / "packed-nano/checkpoint", home / "checkpoint-nano")
    return whole


@pytest.fixture(scope="session")
def compose_file(apart: Namespace) -> dict[str, Any]:
    """What `serve compose` says of an engine that leaves its weights in a checkpoint."""
    told = run(
        apart,
        "nemotrt serve compose engine-nano --checkpoint checkpoint-nano --image nemotrt:rtx",
    ).check()
    found: dict[str, Any] = yaml.safe_load(told.output)
    assert len(found["services"]["nemotrt"]["volumes"]) == 2
    return found
