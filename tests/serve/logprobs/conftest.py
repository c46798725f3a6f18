"""A real server over a tiny model, and transformers' model of the same weights."""

from collections.abc import Iterator
from typing import Any

import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.processes.launcher import serve_engine
from support.served_logprobs import LIMITS, Served


@pytest.fixture(
    scope="package",
    params=[
        "tiny",
        pytest.param("tiny-dense", marks=[pytest.mark.triton, pytest.mark.slow]),
    ],
)
def served(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Served]:
    """The hybrid without Triton, the dense model behind the real one."""
    folder = tmp_path_factory.mktemp("logprobs") / "engine"
    build_engine(TINY_MODELS[request.param], folder, BuildSpec(limits=LIMITS))
    options = ["--threads", "1"]
    if request.param == "tiny":
        options.append("--no-triton")
    else:
        request.getfixturevalue("triton_runtime")
    with serve_engine(folder, *options, drain_s=5) as state:
        yield Served(request.param, state)
