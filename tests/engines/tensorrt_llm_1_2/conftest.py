"""Models for TensorRT-LLM 1.2, and the stand-in of its Python API."""

import functools
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.tiny.models import TINY_MODELS
from support import engine_run, reference
from support.sparse_checkpoint import write_sparse

EXTRA = {
    "int8-sq": [],
    "int8-sq-unfolded": ["--no-fold"],
    "int8-sq-all": ["--no-fold"],
    "fp8": ["--kv-cache", "fp8"],
    "fp8-all": [],
}
ALL = """
description: every linear, the attention's too
algo: {algo}
min_compute_capability: 8.0
quantize:
  nemotron_h:
    mamba: [in_proj, out_proj]
    mlp: [up_proj, down_proj]
    attention: [q_proj, k_proj, v_proj, o_proj]
"""


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that eight GPUs may share, in bfloat16, with the tiny model's tokenizer."""
    folder = tmp_path_factory.mktemp("wide") / "m"
    model = reference.nemotron_h(
        "M-*M-",
        vocab_size=4096,
        hidden_size=128,
        intermediate_size=512,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        mamba_num_heads=64,
        mamba_head_dim=8,
        ssm_state_size=64,
        n_groups=8,
        chunk_size=128,
    )
    reference.save(model, folder)
    for path in TINY_MODELS["tiny"].glob("token*"):
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.fixture(scope="session")
def quantized(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function: recipe, or "bf16" -> the wide model in it, by our own quantizer."""
    folder = tmp_path_factory.mktemp("quantized")

    def quantize(name: str) -> Path:
        target = folder / name
        if name == "bf16":
            return wide
        if not target.exists():
            recipe = name.removesuffix("-unfolded")
            if name.endswith("-all"):
                algo = "FP8" if name == "fp8-all" else "W8A8_SQ_PER_CHANNEL"
                (folder / f"{name}.yaml").write_text(ALL.format(algo=algo))
                recipe = str(folder / f"{name}.yaml")
            words = ["quantize", str(wide), "--recipe", recipe, "-q"]
            words += ["--format", "modelopt", "-o", str(target)]
            if name in EXTRA:
                words += ["--calibration", str(folder / "calibration"), *EXTRA[name]]
                words += ["--sequences", "4", "--sequence-tokens", "32"]
            result = CliRunner().invoke(main, words)
            assert result.exit_code == 0, result.stderr
        return target

    return quantize


@pytest.fixture(scope="session")
def nano_9b(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """Return a function: precision -> the 9B at its real widths; weights are holes in a file."""
    folder = tmp_path_factory.mktemp("9b")

    @functools.cache
    def checkpoint(precision: str) -> Checkpoint:
        path = write_sparse(folder / precision, "nemotron-nano-9b-v2", precision)
        return open_checkpoint(path)

    return checkpoint


@pytest.fixture
def engine_api(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the stand-in where `import tensorrt_llm` finds it."""
    monkeypatch.syspath_prepend(str(engine_run.STAND_IN))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("tensorrt_llm", "tensorrt")]:
        del sys.modules[name]
