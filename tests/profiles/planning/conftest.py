"""Deployments that many tests share."""

from collections.abc import Callable

import pytest

from nemotrt.profiles.planning.answers.deployment import Deployment, DeploymentOptions, deploy


@pytest.fixture
def deployment() -> Callable[..., Deployment]:
    def make(model: str = "nemotron-nano-9b-v2", **options: object) -> Deployment:
        return deploy(DeploymentOptions(model).at(**options))

    return make
