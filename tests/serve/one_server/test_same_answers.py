"""Every field of every door gives one answer over Triton and without it.

test_doors.py beside this has the quick part.
"""

import pytest

from support.door_values import DOORS
from support.same_answers import check_same, whole_and_streamed


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS, ids=lambda door: f"{door.path} {door.schema.__name__}")
def test_a_field_means_the_same_without_triton(server, direct, door) -> None:
    check_same(server, direct, whole_and_streamed(door, map(door.body, door.values)))


def test_the_sweep_knows_every_field() -> None:
    for door in DOORS:
        told = door.least.keys() | door.values.keys()
        assert told == door.schema.model_fields.keys(), door.path
