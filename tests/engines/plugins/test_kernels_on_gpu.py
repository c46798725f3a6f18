"""A plan with the compiled kernels on a real GPU. Not executed by its authors: `pytest -m gpu`.

The kernels themselves are checked by `nemotrt check --kernels`, which tests/build/check runs there.
"""

from pathlib import Path

import pytest
from click.testing import CliRunner

from nemotrt.build.check.kernels.device import device
from nemotrt.cli import main
from nemotrt.engines.backends.tensorrt.device.cuda import cuda_api

pytestmark = pytest.mark.gpu


def test_a_plan_with_plugins_generates_what_the_cpu_does(tmp_path: Path) -> None:
    """The tiny model, greedy: the same first tokens as ONNX Runtime's engine."""
    with device(cuda_api()) as cuda:
        name = {"8.0": "a100", "8.6": "a10g", "9.0": "h100"}[cuda.compute_capability]
    choices = {"cpu": [], "gpu": ["--gpu", name, "--mamba", "plugin"]}
    texts = {}
    for kind, options in choices.items():
        target = str(tmp_path / kind)
        built = CliRunner().invoke(main, ["build", "tiny", "-o", target, *options])
        assert built.exit_code == 0, built.output
        asked = ["generate", target, "--prompt-ids", "300,301,302,303", "--max-tokens", "8"]
        texts[kind] = CliRunner().invoke(main, [*asked, "--temperature", "0"]).stdout
    assert texts["cpu"] == texts["gpu"] != ""
