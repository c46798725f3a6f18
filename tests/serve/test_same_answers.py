"""Every field of every door gives one answer over Triton and without it.

tests/serve/test_doors.py has the quick part.
"""

from collections.abc import Iterator

import pytest

from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import ServerState
from support.door_values import DOORS
from support.same_answers import check_same, whole_and_streamed


@pytest.fixture(scope="module")
def both(engine_folder, triton_runtime) -> Iterator[tuple[ServerState, ServerState]]:
    options = ("--threads", "1", "--free-ports")
    with (
        serve_engine(engine_folder, *options, drain_s=5) as triton,
        serve_engine(engine_folder, *options, "--no-triton", drain_s=5) as direct,
    ):
        yield triton, direct


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS, ids=lambda door: f"{door.path} {door.schema.__name__}")
def test_a_field_means_the_same_without_triton(both, door) -> None:
    check_same(*both, whole_and_streamed(door, map(door.body, door.values)))


def test_the_sweep_knows_every_field() -> None:
    for door in DOORS:
        told = door.least.keys() | door.values.keys()
        assert told == door.schema.model_fields.keys(), door.path
