"""GGUF files that we write: every tensor and key as llama.cpp's own, whole or not at all."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.gguf import folder as gguf_folder
from nemotrt.engines.checkpoint.gguf.blocks import BY_WORD
from nemotrt.engines.checkpoint.gguf.changes import hub_rows, stored_rows
from nemotrt.engines.checkpoint.gguf.file import GgufFile, read_gguf
from nemotrt.engines.checkpoint.gguf.header import Stored, head_bytes
from nemotrt.engines.checkpoint.gguf.names import architecture_of, hub_name, stored_name
from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.model.tensor_names import expected_shapes
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.engines.tiny.random_checkpoint import write_checkpoint
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.conversion import blocks
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.recipes.recipe import load_recipe, recipe_names
from nemotrt.quantize.writing import writer as folder_writer
from nemotrt.quantize.writing.gguf.metadata import size_label
from nemotrt.quantize.writing.gguf.vocabulary import splitting
from nemotrt.quantize.writing.gguf.writer import quantize_to_gguf
from nemotrt.quantize.writing.writer import quantize_checkpoint
from support.llama_source import llama_source
from support.members import MEMBERS

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "benchmarks/cpu"
CONVERT = Path(__file__).parent / "oracles/llama_convert_whole.py"
WRITTEN = {"int8-wo": "Q8_0", "int4-wo": "Q4_0"}
EXPERTS: dict[str, Any] = MEMBERS["nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"][0] | {
    "architectures": ["NemotronHForCausalLM"],
    "vocab_size": 96,
    "hidden_size": 64,
    "hybrid_override_pattern": "MEM*E",
    "num_hidden_layers": 5,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "ssm_state_size": 16,
    "n_groups": 2,
    "n_routed_experts": 12,  # two figures: 10 comes behind 9
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 64,
    "moe_latent_size": 32,
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of unfolded files alone."""
    monkeypatch.setattr(gguf_folder, "user_cache", lambda: tmp_path / "cache")


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experts") / "model"
    write_checkpoint(folder, EXPERTS)
    return folder


def write(source: Path, target: Path, recipe: str = "int8-wo", **options: Any) -> GgufFile:
    quantize_to_gguf(source, target, load_recipe(recipe), QuantizeOptions(**options))
    return read_gguf(target)


def without_tokenizer(make: Callable[..., Path], *args: Any, **more: Any) -> Path:
    source = make(*args, **more)
    (source / "tokenizer.json").unlink()
    return source


FLOATS = st.floats(-100, 100, width=32)


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, (2, 64), elements=FLOATS))
def test_q8_0_is_ggmls_to_the_bit(values: npt.NDArray[np.float32]) -> None:
    """By ggml's own words: d = amax / 127, code = roundf(x / d), ties away from zero."""
    raw, _ = blocks.q8_0(values)
    groups = values.reshape(-1, 32)
    scale = np.abs(groups).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    assume(np.isfinite(inverse).all())  # else ggml casts infinity to a byte; the scale is 0 in half
    product = groups * inverse
    codes = np.sign(product) * (np.floor(np.abs(product)) + (np.abs(product) % 1 >= 0.5))
    expected = np.concatenate(
        [scale.astype(np.float16).view(np.uint8), codes.astype(np.int8).view(np.uint8)], axis=1
    )
    np.testing.assert_array_equal(raw.reshape(-1, 34), expected)


def test_q4_0_holds_int4_wos_codes_and_scales(tmp_path: Path) -> None:
    source = TINY_MODELS["tiny"]
    write(source, tmp_path / "m.gguf", "int4-wo")
    quantize_checkpoint(source, tmp_path / "folder", load_recipe("int4-wo"), QuantizeOptions())
    found = open_checkpoint(checkpoint_folder(str(tmp_path / "m.gguf")))
    other = open_checkpoint(tmp_path / "folder")
    names = [n for n in expected_shapes(found.config) if not other[n].is_float]
    assert len(names) == 24
    for name in names:
        np.testing.assert_array_equal(found.floats(name), LinearWeight(other, name).floats())


@pytest.mark.parametrize("model_type", ["nemotron_h", "qwen3", "experts"])
@pytest.mark.parametrize("recipe", WRITTEN)
def test_what_is_read_back_is_the_checkpoint(
    make_checkpoint: Callable[..., Path],
    experts: Path,
    tmp_path: Path,
    model_type: str,
    recipe: str,
) -> None:
    is_made = model_type != "experts"
    source = without_tokenizer(make_checkpoint, model_type) if is_made else experts
    if not is_made and recipe == "int4-wo":
        with pytest.raises(ConfigError, match="neither quantize nor keep for nemotron_h moe"):
            write(source, tmp_path / "m.gguf", recipe)
        return
    file = write(source, tmp_path / "m.gguf", recipe)
    kinds = {tensor.kind for tensor in file.tensors.values()}
    assert kinds == {"F32", "Q8_0", WRITTEN[recipe]}
    assert file.tensors["token_embd.weight"].kind == file.tensors["output.weight"].kind == "Q8_0"
    found = open_checkpoint(checkpoint_folder(str(tmp_path / "m.gguf")))
    expected = open_checkpoint(source)
    assert found.config.computes_as(expected.config)
    assert found.config.max_position_embeddings == expected.config.max_position_embeddings
    assert set(found.used_names()) == set(expected.used_names())
    for name in expected.used_names():
        ours, theirs = found.floats(name), expected.floats(name)
        assert ours.shape == theirs.shape
        step = 1 / 200 if recipe == "int8-wo" else 1 / 5
        is_exact = theirs.ndim != 2 or name.endswith(".gate.weight")
        limit = 1e-6 if is_exact else step * np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, atol=limit, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("raw", [raw for raw, *_ in MEMBERS.values()], ids=list(MEMBERS))
def test_each_name_has_one_way_there_and_back(raw: dict[str, Any]) -> None:
    model = parse_model_config(raw)
    architecture = architecture_of(model)
    for name in expected_shapes(model):
        found = stored_name(architecture, name)
        assert found is not None, name
        back, change = hub_name(architecture, found[0])
        number = name.partition(".experts.")[2].partition(".")[0]
        assert back.format(number) == name and change is found[1]


@given(st.integers(1, 40), st.integers(1, 5))
def test_the_order_of_rows_is_undone(half: int, heads: int) -> None:
    rows = np.arange(2 * half * heads)
    np.testing.assert_array_equal(hub_rows(2 * half, stored_rows(2 * half, rows)), rows)


def test_linears_that_are_kept_stay_as_they_are(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = without_tokenizer(make_checkpoint)
    file = write(source, tmp_path / "m.gguf", "int4-wo", keep_feeders=True)
    assert file.tensors["blk.3.ssm_in.weight"].kind == "BF16"
    assert file.tensors["blk.0.ssm_in.weight"].kind == "Q4_0"
    found = open_checkpoint(checkpoint_folder(str(tmp_path / "m.gguf")))
    name = "backbone.layers.3.mixer.in_proj.weight"
    np.testing.assert_array_equal(found.floats(name), open_checkpoint(source).floats(name))


METADATA = st.dictionaries(
    st.text(min_size=1, max_size=8),
    st.one_of(
        st.text(max_size=8),
        st.booleans(),
        st.integers(0, 2**32 - 1),
        st.floats(width=32, allow_nan=False),
        st.lists(st.text(max_size=4), max_size=4),
        arrays(np.int32, st.integers(0, 4)),
    ),
    max_size=6,
)


@settings(max_examples=30, deadline=None)
@given(METADATA)
def test_a_head_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Any]
) -> None:
    metadata.pop("general.alignment", None)
    tensors = [Stored("a", "Q8_0", (3, 64)), Stored("b", "F32", (5,))]
    path = tmp_path_factory.mktemp("head") / "m.gguf"
    path.write_bytes(head_bytes(metadata, tensors) + bytes(224 + 20))
    found = read_gguf(path)
    assert found.metadata.keys() == metadata.keys()
    for key, value in metadata.items():
        np.testing.assert_array_equal(found.metadata[key], value)
    assert [(t.name, t.kind, t.shape) for t in found.tensors.values()] == [
        (t.name, t.kind, t.shape) for t in tensors
    ]


@pytest.mark.parametrize("name", TINY_MODELS)
def test_the_tokenizer_comes_back(name: str, tmp_path: Path) -> None:
    source = TINY_MODELS[name]
    write(source, tmp_path / "m.gguf")
    opened = checkpoint_folder(str(tmp_path / "m.gguf"))
    ours, theirs = load_tokenizer(opened), load_tokenizer(source)
    assert ours is not None and theirs is not None
    texts = [path.read_text()[:2000] for path in (source.parent / "heldout").glob("*.txt")]
    for text in [*texts, "  two  spaces\n\n\tand tabs 12345 don't", "<SPECIAL_12>x"]:
        for adds in (True, False):
            found, expected = (t.encode(text, add_special_tokens=adds) for t in (ours, theirs))
            assert found == expected
    template = (source / "chat_template.jinja").read_text()
    assert (opened / "chat_template.jinja").read_text() == template


def edited(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((TINY_MODELS["tiny"] / "tokenizer.json").read_text())
    change(raw)
    return raw


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda raw: raw["model"].update(type="Unigram"), "a model of type 'Unigram'"),
        (lambda raw: raw.update(pre_tokenizer={"type": "Metaspace"}), "pre_tokenizer Metaspace"),
        (
            lambda raw: raw["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=r"\p{L}+"),
            "the expression",
        ),
        (lambda raw: raw.update(normalizer={"type": "Lowercase"}), "a normalizer Lowercase"),
        (lambda raw: raw["model"]["merges"].clear(), "ignore_merges False with tekken"),
    ],
)
def test_a_splitting_without_a_name_is_refused(
    change: Callable[[dict[str, Any]], None], what: str
) -> None:
    assert splitting(edited(lambda raw: None), Path("x")) == "tekken"
    with pytest.raises(ConfigError, match=what) as found:
        splitting(edited(change), Path("x"))
    assert "convert_hf_to_gguf.py" in found.value.message


@pytest.mark.parametrize("recipe", sorted(set(recipe_names()) - set(WRITTEN)))
def test_other_recipes_are_refused_by_name(recipe: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"no type for {recipe} .*int8-wo \(Q8_0\), int4-wo"):
        write(TINY_MODELS["tiny"], tmp_path / "m.gguf", recipe)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kv-cache", "fp8"], "--cache-type-k"),
        (["--recipe", "int4-wo", "--group-size", "64"], "Q4_0 has groups of 32 inputs, not 64"),
        (["-o", "out"], "give -o out.gguf"),
    ],
)
def test_options_that_a_file_can_not_hold_are_refused(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["quantize", "tiny", "--recipe", "int8-wo", "--format", "gguf", "-o", "m.gguf"]
    found = CliRunner().invoke(main, [*command, *options])
    assert found.exit_code == 2 and message in " ".join(found.stderr.split())
    assert not list(tmp_path.iterdir())


def test_a_model_that_llama_cpp_computes_otherwise_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", EXPERTS | {"time_step_limit": [0.001, 0.1]})
    with pytest.raises(ConfigError, match="does not limit the time step"):
        write(tmp_path / "model", tmp_path / "m.gguf")


def test_the_command_tells_who_loads_it_and_keeps_what_is_there(tmp_path: Path) -> None:
    target = tmp_path / "tiny-Q8_0.gguf"
    command = ["quantize", "tiny", "--recipe", "int8-wo", "-o", str(target)]
    planned = CliRunner().invoke(main, [*command, "--dry-run", "--json"])
    first = CliRunner().invoke(main, [*command, "--json"])
    assert first.exit_code == planned.exit_code == 0, first.stderr
    told, plan = json.loads(first.stdout), json.loads(planned.stdout)
    assert told["quant_algo"] == "GGUF Q8_0" and told["loaders"]["llama.cpp"] == "yes"
    assert told["target_bytes"] == plan["target_bytes"] == target.stat().st_size
    assert plan["format"] == "gguf"
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 2 and "--force" in again.stderr
    assert CliRunner().invoke(main, [*command, "--force"]).exit_code == 0
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == [target.name]


def test_a_killed_run_is_taken_up(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = without_tokenizer(make_checkpoint)
    write(source, tmp_path / "whole.gguf")
    real, calls = folder_writer.write_shard, []

    def killed(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(folder_writer, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        write(source, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()
    write(source, tmp_path / "m.gguf", resume=True)
    assert len(calls) == 2 + 2  # the first of three shards was there
    ours, expected = (read_gguf(tmp_path / n) for n in ("m.gguf", "whole.gguf"))
    assert ours.tensors == {
        name: type(t)(t.name, t.kind, t.shape, t.offset, t.num_bytes)
        for name, t in expected.tensors.items()
    }
    assert (tmp_path / "m.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_nan_is_named(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    name = "backbone.layers.0.mixer.in_proj.weight"

    def spoil(tensors: dict[str, Any]) -> None:
        tensors[name][3, 5] = float("nan")

    source = without_tokenizer(make_checkpoint, edit=spoil)
    for recipe in WRITTEN:
        with pytest.raises(ArtefactError, match=rf"{name} holds NaN or infinity, first near row 3"):
            write(source, tmp_path / "m.gguf", recipe)
    assert not list(tmp_path.glob("*.gguf"))


def test_sizes_are_named_as_gguf_py_names_them() -> None:
    assert size_label([Stored("a", "F32", (8_888_000_000,))]) == "8.9B"
    assert size_label([Stored("a", "F32", (31_000,))]) == "31K"
    assert size_label([Stored("a", "F32", (64, 10, 1000)), Stored("b", "F32", (5000,))]) == "64x15K"


# What differs from the converter's metadata, and why.
OWN = {
    "general.name",  # it guesses at words in the folder's name
    "nemotron_h.context_length",  # it writes 2^20 for every hybrid
    "nemotron_h_moe.context_length",
    "nemotron_h_moe.attention.layer_norm_rms_epsilon",  # both spellings, where it has the config's
    "tokenizer.ggml.add_sep_token",  # False, which is what its absence means
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "tiny-dense", "experts"])
def test_the_file_is_llama_cpps_own(name: str, tmp_path: Path, experts: Path) -> None:
    """Names, shapes, types, metadata, and the bytes; then gguf-py reads it as we do."""
    folder = TINY_MODELS.get(name, experts)
    llama = llama_source().source_folder()
    command = [sys.executable, str(CONVERT), str(llama), str(folder), "q8_0", str(tmp_path / "t")]
    subprocess.run(command, check=True, capture_output=True)
    theirs, ours = read_gguf(tmp_path / "t"), write(folder, tmp_path / "m.gguf")
    for key in (theirs.metadata.keys() | ours.metadata.keys()) - OWN:
        np.testing.assert_array_equal(theirs.metadata.get(key), ours.metadata.get(key), key)
    assert theirs.tensors.keys() == ours.tensors.keys()
    for tensor, found in theirs.tensors.items():
        own = ours.tensors[tensor]
        assert (own.kind, own.shape) == (found.kind, found.shape), tensor
        raw = [data(file, tensor) for file in (ours, theirs)]
        if tensor.endswith("ssm_a"):  # exp differs in the last bit
            np.testing.assert_array_max_ulp(*(r.view(np.float32) for r in raw), maxulp=1)
        else:
            np.testing.assert_array_equal(*raw, tensor)
    sys.path.insert(0, str(llama / "gguf-py"))
    import gguf  # type: ignore[import-not-found]

    for recipe in ("int8-wo", *(["int4-wo"] if name != "experts" else [])):
        file = write(folder, tmp_path / "m.gguf", recipe, force=True)
        for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors:
            own = file.tensors[tensor.name]
            assert own.shape == tuple(reversed(tensor.shape.tolist()))
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            kind, raw = BY_WORD[own.kind], data(file, tensor.name)
            decoded = (
                kind.decode(raw.reshape(-1, kind.block_bytes)) if kind.decode else raw.view("f4")
            )
            np.testing.assert_array_equal(decoded.reshape(own.shape), values)


def data(file: GgufFile, name: str) -> npt.NDArray[np.uint8]:
    tensor = file.tensors[name]
    place = {"offset": tensor.offset, "shape": (tensor.num_bytes,)}
    return np.array(np.memmap(file.path, np.uint8, "r", **place))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", WRITTEN)
@pytest.mark.parametrize("name", ["tiny", "tiny-dense"])
def test_llama_cpp_loads_it_and_says_what_we_say(name: str, recipe: str, tmp_path: Path) -> None:
    """llama.cpp's own library: ids of texts, and logits beside our engine's on the same file."""
    sys.path.insert(0, str(BENCHMARK))
    from llama_build import shim_library  # type: ignore[import-not-found]

    path = tmp_path / "m.gguf"
    write(TINY_MODELS[name], path, recipe)
    text = (TINY_MODELS[name].parent / "heldout/en.txt").read_text()[:400]
    script = Path(__file__).parent / "oracles/llama_logits.py"
    command = [sys.executable, str(script), str(shim_library()), str(path), str(tmp_path / "o.npz")]
    subprocess.run(command, input=text, text=True, check=True, capture_output=True)
    found = np.load(tmp_path / "o.npz")
    tokenizer = load_tokenizer(checkpoint_folder(str(path)))
    assert tokenizer is not None
    ids = tokenizer.encode(text)
    assert found["ids"].tolist() == ids
    limits = Limits(max_batch_size=1, max_seq_len=512, chunk_tokens=64)
    spec = BuildSpec("native", precision=Precision.FP32, limits=limits)
    build_engine(checkpoint_folder(str(path)), tmp_path / "engine", spec)
    engine = open_engine(tmp_path / "engine").engine
    slot = engine.allocate()
    ours = np.stack([engine.step([Feed(slot, [token])])[0].copy() for token in ids])
    engine.close()
    error = np.sqrt(np.mean((found["logits"] - ours) ** 2)) / ours.std()
    assert error < 0.03  # llama.cpp rounds each 32 inputs of a linear to int8
    assert (found["logits"].argmax(axis=1) == ours.argmax(axis=1)).mean() > 0.9
