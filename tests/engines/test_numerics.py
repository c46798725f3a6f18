"""The one table of number formats against the libraries that own the words, and who may build."""

import ml_dtypes
import numpy as np
import onnx
import pydantic
import pytest
import torch
from safetensors.numpy import save

from nemotrt.engines.artefact.manifest import Manifest
from nemotrt.engines.backends import registry
from nemotrt.engines.model.numerics import BUILT, QUANTIZED, SAFETENSORS, NumberFormat, Precision
from nemotrt.quantize.recipes.recipe import load_recipe, recipe_names


@pytest.mark.parametrize("item", NumberFormat)
def test_a_format_is_what_onnx_and_numpy_know(item: NumberFormat) -> None:
    assert onnx.helper.np_dtype_to_tensor_dtype(item.numpy) == item.onnx
    limits = ml_dtypes.iinfo if item.kind == "int" else ml_dtypes.finfo
    found = limits(item.numpy)
    assert found.bits == item.num_bits
    if item.is_code:
        assert float(found.max) == item.largest_code


@pytest.mark.parametrize("word", SAFETENSORS)
def test_a_word_is_the_safetensors_librarys(word: str) -> None:
    """Its own writer names the type of our array so."""
    raw = save({"x": np.zeros(2, SAFETENSORS[word].numpy)})
    assert f'"dtype":"{word}"'.encode() in raw


def test_floats_have_torchs_words() -> None:
    for item in SAFETENSORS.values():
        assert getattr(torch, item.word).itemsize == item.num_bytes


def test_every_quantized_precision_has_a_recipe_and_no_other() -> None:
    """A new row in BUILT without a recipe, and so without a kernel test, shows here."""
    assert {load_recipe(name).precision for name in recipe_names()} == set(QUANTIZED.values())


@pytest.mark.parametrize("precision", [item for item in Precision if item not in BUILT])
def test_what_no_engine_is_built_in_is_refused_everywhere(precision: Precision) -> None:
    with pytest.raises(pydantic.ValidationError, match=f"no engine is built in {precision}"):
        Manifest.model_validate({"precision": precision.value})
    for backend in registry.backends():
        assert backend.supports(None if backend.is_cpu else "8.0", precision)
