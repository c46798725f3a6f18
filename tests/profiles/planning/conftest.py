"""Deployments that many tests share."""

from collections.abc import Callable

import pytest

from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy
from nemotrt.profiles.planning.measured.rows import read_rows
from nemotrt.profiles.planning.measured.validation import Validation, validate


@pytest.fixture
def deployment() -> Callable[..., Deployment]:
    def make(model: str = "nemotron-nano-9b-v2", **options: object) -> Deployment:
        return deploy(DeploymentOptions(model).at(**options))

    return make


@pytest.fixture(scope="session")
def validation() -> Validation:
    """The planner beside all shipped rows, which takes seconds."""
    return validate(read_rows())
