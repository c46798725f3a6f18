"""The folders of the rehearsal on an A10G, and what a laptop sent to it: made once a session."""

from collections.abc import Callable, Iterator

import pytest

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
