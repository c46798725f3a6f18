"""Every emitter's graph against Hugging Face transformers, in float32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nemotrt.engines.backends.onnxruntime import engine as onnxruntime
from nemotrt.engines.backends.tensorrt.graph import export as graph_export
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.graph.onnx_graph import GRAPH_FILE, OnnxGraph
from nemotrt.engines.graph.standard import StandardEmitter
from nemotrt.engines.model.description import describe
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from support import reference
from support.examples import up_to
from support.graph_runner import GraphRunner, as_float32
from support.random_models import models

TOLERANCE = 1e-4
CACHE = 48
FLAVOURS = ("standard", "onnxruntime", "tensorrt")
LETTERS = {
    "standard": "M-*E",
    "onnxruntime": "M-*E",
    "tensorrt": "M-*",
}  # of the layers that it has

slow_examples = settings(
    max_examples=up_to(60),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # no shrinking: models are small
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def export(flavour: str, checkpoint: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the exported graph of one flavour and the weights that it takes as inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    opened = open_checkpoint(checkpoint)
    limits = Limits(max_batch_size=4, max_seq_len=CACHE, chunk_tokens=16)
    if flavour == "onnxruntime":
        onnxruntime.export(opened, folder, limits, Precision.FP32)
        return folder / GRAPH_FILE, {}
    if flavour == "tensorrt":
        bound = graph_export.export(opened, folder, limits, Precision.BF16)
        weights = {name: opened.floats(weight.tensor) for name, weight in bound.items()}
        return as_float32(folder / GRAPH_FILE, folder / "float32.onnx"), weights
    graph = OnnxGraph("test", folder)
    describe(opened.config, StandardEmitter(opened, graph, CACHE))
    return graph.save(), {}


def splits(draw: Any, total: int) -> list[int]:
    """Draw chunk sizes that add up to `total`."""
    sizes = []
    while total:
        sizes.append(draw(st.integers(1, min(total, 16))))
        total -= sizes[-1]
    return sizes


@pytest.mark.parametrize("flavour", FLAVOURS)
@given(data=st.data())
@slow_examples
def test_logits_equal_transformers(
    flavour: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any model, any split into chunks: after each chunk the logits are transformers'."""
    model = data.draw(models(letters=LETTERS[flavour]))
    tmp = tmp_path_factory.mktemp("model")
    path, weights = export(flavour, reference.save(model, tmp / "checkpoint"), tmp / "graph")
    length = data.draw(st.integers(1, 30))
    seed = data.draw(st.integers(0, 1000))
    tokens = np.random.default_rng(seed).integers(0, model.config.vocab_size, length).tolist()
    expected = reference.logits(model, tokens)
    runner = GraphRunner(path, 1, CACHE, weights)
    done = 0
    for size in splits(data.draw, length):
        found = runner.feed([tokens[done : done + size]])
        done += size
        np.testing.assert_allclose(found[0], expected[done - 1], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("flavour", ["standard", "tensorrt"])
@given(data=st.data())
@slow_examples
def test_padding_and_batch_mates_change_nothing(
    flavour: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Sequences of other lengths and padding beside a sequence leave its logits as they are."""
    model = data.draw(models(letters=LETTERS[flavour]))
    tmp = tmp_path_factory.mktemp("model")
    path, weights = export(flavour, reference.save(model, tmp / "c"), tmp / "g")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    lengths = data.draw(st.lists(st.integers(3, 20), min_size=2, max_size=4))
    prompts = [rng.integers(0, model.config.vocab_size, n).tolist() for n in lengths]
    expected = [reference.logits(model, prompt) for prompt in prompts]
    runner = GraphRunner(path, len(prompts), CACHE, weights)
    done = [0] * len(prompts)
    for later_rounds in (2, 1, 0):  # each round leaves every sequence a token for each later one
        rest = [len(p) - d - later_rounds for p, d in zip(prompts, done, strict=True)]
        sizes = [data.draw(st.integers(1, r)) if later_rounds else r for r in rest]
        chunks = [p[d : d + n] for p, d, n in zip(prompts, done, sizes, strict=True)]
        found = runner.feed(chunks, pad_to=max(sizes) + data.draw(st.integers(0, 5)))
        done = [d + n for d, n in zip(done, sizes, strict=True)]
        for row, logits, position in zip(found, expected, done, strict=True):
            np.testing.assert_allclose(row, logits[position - 1], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_time_step_limit_of_the_config_is_applied(flavour: str, tmp_path: Path) -> None:
    """A finite limit clamps dt; transformers is told the same limit."""
    model = reference.nemotron_h("M-M")
    model.config.time_step_limit = [0.02, 0.4]
    path, weights = export(flavour, reference.save(model, tmp_path / "c"), tmp_path / "g")
    tokens = list(range(20))
    unlimited = reference.logits(model, tokens)[-1]
    expected = reference.logits(reference.without_clamp(model, (0.02, 0.4)), tokens)[-1]
    assert np.abs(unlimited - expected).max() > 100 * TOLERANCE, "the limit must matter"
    found = GraphRunner(path, 1, CACHE, weights).feed([tokens])[0]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_the_tensorrt_file_differs_from_the_standard_only_in_types(tmp_path: Path) -> None:
    """The SSM state stays float32 in the bfloat16 graph; everything else carried is bfloat16."""
    import onnx

    checkpoint = reference.save(reference.nemotron_h(), tmp_path / "c")
    limits = Limits(2, CACHE, 8)
    folder = tmp_path / "g"
    folder.mkdir()
    graph_export.export(open_checkpoint(checkpoint), folder, limits, Precision.BF16)
    model = onnx.load(str(folder / GRAPH_FILE))
    types = {
        v.name: v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]
    }
    states = {
        name: kind for name, kind in types.items() if name.startswith(("ssm", "conv", "k_", "v_"))
    }
    assert {kind for name, kind in states.items() if name.startswith("ssm")} == {
        onnx.TensorProto.FLOAT
    }
    assert {kind for name, kind in states.items() if not name.startswith("ssm")} == {
        onnx.TensorProto.BFLOAT16
    }
    assert types["logits"] == onnx.TensorProto.FLOAT
    assert model.opset_import[0].version == 24
