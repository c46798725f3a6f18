"""The path from a bare GPU host to the verdict, walked as the guide says, on a host without a GPU."""

from pathlib import Path

import pytest

from support.rehearsal.walk import Kit, Walk, of

VERDICTS = ("met", "not met", "undecided", "not comparable")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rehearsal")


@pytest.mark.triton
def test_from_a_laptops_plan_to_the_verdict(folder: Path) -> None:
    walk = Walk(Kit(folder, "a10g"))
    with walk.laptop() as laptop:
        for line in of("5", "plan "):
            walk.do(laptop, line)
        walk.make_limits_small("laptop")
        for line in of("6a")[:5]:
            walk.do(laptop, line)
    with walk.host() as host:
        for line in [
            *of("1", "nvidia-smi"),
            *of("3", "doctor"),
            *of("7", "inspect", "check packed-nano"),
        ]:
            walk.do(host, line)
        compose, client = of("8", "compose"), of("8", "openai")
        for line in compose:
            walk.do(host, line)
        walk.do(host, client[0], shell=2)
        host.run("docker compose down")
        for line in [*of("10", "-o run-"), *of("11")]:
            walk.do(host, line)
    outcomes = {line.text.split()[1]: done for line, done in walk.done}
    print(outcomes["compare"].text)
