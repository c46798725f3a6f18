"""What `quantize` writes: codes, scales, configs, an index, and everything else as it was."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.calibration.calibrate import calibrate
from nemotrt.quantize.calibration.calibration import save_calibration
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.recipes.recipe import load_recipe, recipe_names
from nemotrt.quantize.writing import writer
from nemotrt.quantize.writing.writer import quantize_checkpoint
from support.quantized_bytes import FP8_DYNAMIC, INT8, leftovers

IN_PROJ = "backbone.layers.0.mixer.in_proj"


def load(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}


@pytest.mark.parametrize("model_type", ["nemotron_h", "qwen3"])
@pytest.mark.parametrize("recipe", [INT8, FP8_DYNAMIC], ids=lambda recipe: recipe.name)
def test_weights_are_quantized_and_the_rest_is_the_same(
    make_checkpoint: Callable[..., Path], tmp_path: Path, model_type: str, recipe: writer.Recipe
) -> None:
    source = make_checkpoint(model_type)
    result = quantize_checkpoint(source, tmp_path / "out", recipe)
    before, after = load(source), load(tmp_path / "out")
    scales = {name for name in after if name.endswith(".weight_scale")}
    assert len(scales) == result.num_linears > 0
    assert after.keys() - scales == before.keys()
    for name, tensor in before.items():
        if f"{name}_scale" not in scales:
            assert torch.equal(after[name].view(torch.uint8), tensor.view(torch.uint8)), name
            continue
        scale = after[f"{name}_scale"]
        assert scale.dtype == torch.float32 and scale.shape == (tensor.shape[0],)
        back = after[name].float() * scale[:, None]
        error = (back - tensor.float()).norm() / tensor.float().norm()
        assert error < (0.012 if recipe is INT8 else 0.03), name


def test_both_configs_agree_and_the_rest_of_the_folder_comes_along(
    checkpoint: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    quantize_checkpoint(checkpoint, target, FP8_DYNAMIC, QuantizeOptions(kv_cache="fp8"))
    nested = json.loads((target / "hf_quant_config.json").read_text())["quantization"]
    config = json.loads((target / "config.json").read_text())
    flat = config["quantization_config"]
    assert flat["quant_algo"] == nested["quant_algo"] == "FP8_PER_CHANNEL_PER_TOKEN"
    assert flat["ignore"] == nested["exclude_modules"]
    assert nested["kv_cache_quant_algo"] == "FP8"
    assert flat["kv_cache_scheme"] == {"dynamic": False, "num_bits": 8, "type": "float"}
    assert config["mamba_ssm_cache_dtype"] == "float32"
    original = json.loads((checkpoint / "config.json").read_text())
    assert {key: config[key] for key in original} == original
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (target / name).read_bytes() == (checkpoint / name).read_bytes()


def test_weights_in_other_formats_stay_behind(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_checkpoint()
    for name in ("pytorch_model.bin", "pytorch_model.bin.index.json", ".hidden"):
        (source / name).write_text("{}")
    (source / "modeling_nemotron_h.py").write_text("# theirs")
    quantize_checkpoint(source, tmp_path / "out", INT8)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "modeling_nemotron_h.py" in names
    assert not any("pytorch_model" in name or name == ".hidden" for name in names)


def test_the_engine_reads_it_back(checkpoint: Path, tmp_path: Path) -> None:
    quantize_checkpoint(checkpoint, tmp_path / "out", INT8)
    opened = open_checkpoint(tmp_path / "out")
    assert opened.quant.precision is Precision.INT8_WO
    assert opened[f"{IN_PROJ}.weight"].dtype == "I8"


def test_index_names_every_tensor_where_it_is(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    quantize_checkpoint(checkpoint, target, INT8)
    index = json.loads((target / "model.safetensors.index.json").read_text())
    found = {}
    for path in target.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found.update(dict.fromkeys(file.keys(), path.name))
    assert index["weight_map"] == found
    sizes = [tensor.nbytes for tensor in load(target).values()]
    assert index["metadata"]["total_size"] == sum(sizes)


def test_a_single_file_needs_no_index(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    quantize_checkpoint(make_checkpoint(num_shards=1), tmp_path / "out", INT8)
    assert [path.name for path in (tmp_path / "out").glob("model*")] == ["model.safetensors"]


def test_an_empty_shard_stays_an_empty_shard(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_checkpoint()
    empty = b'{"__metadata__":{"format":"pt"}}'
    (source / "model-9.safetensors").write_bytes(len(empty).to_bytes(8, "little") + empty)
    index = json.loads((source / "model.safetensors.index.json").read_text())
    index["weight_map"]["unused"] = "model-9.safetensors"
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    quantize_checkpoint(source, tmp_path / "out", INT8)
    assert load_file(tmp_path / "out/model-9.safetensors") == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_float_types(
    make_checkpoint: Callable[..., Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    source = make_checkpoint(dtype=dtype)
    quantize_checkpoint(source, tmp_path / "out", INT8)
    before, after = load(source), load(tmp_path / "out")
    weight = before[f"{IN_PROJ}.weight"].float()
    scale = weight.abs().amax(1) / 127
    assert torch.equal(after[f"{IN_PROJ}.weight_scale"], scale)
    assert torch.equal(after[f"{IN_PROJ}.weight"].float(), (weight / scale[:, None]).round())


def test_a_zero_row_and_an_equal_row(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{IN_PROJ}.weight"][0] = 0
        tensors[f"{IN_PROJ}.weight"][1] = 0.5

    quantize_checkpoint(make_checkpoint(edit=edit), tmp_path / "out", INT8)
    after = load(tmp_path / "out")
    codes, scales = after[f"{IN_PROJ}.weight"], after[f"{IN_PROJ}.weight_scale"]
    assert scales[0] == 1 and not codes[0].any()
    assert (codes[1] == 127).all() and scales[1] == torch.tensor(0.5) / 127


@pytest.mark.parametrize("recipe", recipe_names())
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_bad_weight_is_named_and_nothing_is_left(
    make_checkpoint: Callable[..., Path], tmp_path: Path, value: str, recipe: str
) -> None:
    """Whatever the recipe: the calibration may be of better days."""

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{IN_PROJ}.weight"][7, 3] = float(value)

    ids = np.arange(32).reshape(2, 16)
    save_calibration(calibrate(open_checkpoint(make_checkpoint()), ids), tmp_path / "c")
    options = QuantizeOptions(calibration=tmp_path / "c")
    with pytest.raises(
        ArtefactError, match=r"in_proj.weight holds NaN or infinity, first in row 7"
    ):
        quantize_checkpoint(
            make_checkpoint(edit=edit), tmp_path / "out", load_recipe(recipe), options
        )
    assert leftovers(tmp_path / "out") == []


def test_a_quantized_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    quantize_checkpoint(checkpoint, tmp_path / "once", INT8)
    with pytest.raises(ConfigError, match="quantized already"):
        quantize_checkpoint(tmp_path / "once", tmp_path / "twice", INT8)
    (tmp_path / "once/hf_quant_config.json").unlink()  # config.json still says it
    with pytest.raises(ConfigError, match="quantized already"):
        quantize_checkpoint(tmp_path / "once", tmp_path / "twice", INT8)
    assert leftovers(tmp_path / "twice") == []
