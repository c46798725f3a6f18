"""Checkpoints read lazily and exactly; damage is found before use and said in one line."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from nemotrt.cli import main
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.stored.safetensors_file import read_header
from nemotrt.errors import ArtefactError, ConfigError
from support import reference

TORCH_DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.int64,
    torch.int32,
    torch.int8,
    torch.uint8,
    torch.bool,
]
no_deadline = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=6),
    data=st.data(),
)
@no_deadline
def test_reads_what_the_safetensors_library_writes(
    tmp_path: Path, shapes: list[list[int]], data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for number, shape in enumerate(shapes):
        dtype = data.draw(st.sampled_from(TORCH_DTYPES))
        tensors[f"t{number}"] = (torch.randn(shape, generator=generator) * 50).to(dtype)
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    refs, metadata = read_header(path)
    assert metadata == {"format": "pt"}
    assert set(refs) == set(tensors)
    for name, tensor in tensors.items():
        found = refs[name].map()
        assert found.shape == tuple(tensor.shape)
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        assert found.tobytes() == raw
        assert refs[name].read(0, refs[name].num_bytes) == found.tobytes()


@given(position=st.integers(0, 400), byte=st.integers(0, 255), cut=st.integers(0, 500))
@no_deadline
def test_a_damaged_file_never_reads_out_of_bounds(
    tmp_path: Path, position: int, byte: int, cut: int
) -> None:
    """Any changed byte, any truncation: the tensors lie inside the file, or one error says why."""
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.arange(12).reshape(3, 4), "b": torch.ones(5, dtype=torch.bfloat16)}, path)
    raw = bytearray(path.read_bytes())
    raw[position % len(raw)] = byte
    path.write_bytes(raw[: max(len(raw) - cut, 0)] if cut % 3 == 0 else raw)
    try:
        refs, _ = read_header(path)
    except ArtefactError as error:
        assert "\n" not in error.message
        return
    size = path.stat().st_size
    for ref in refs.values():
        assert ref.offset >= 8 and ref.offset + ref.num_bytes <= size
        assert ref.map().nbytes == ref.num_bytes


def header_file(path: Path, header: Any, data: bytes = b"\0" * 64) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 80]}}, "truncated"),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}, "truncated"),
        ({"a": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}}, "malformed"),
        ({"a": {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]}}, "spans 16 bytes"),
        ({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}, "malformed"),
        ({"a": {"dtype": "F32", "shape": 4, "data_offsets": [0, 16]}}, "malformed"),
        ({"a": {"dtype": "F31", "shape": [4], "data_offsets": [0, 16]}}, "'F31'"),
        ({"a": {"shape": [4], "data_offsets": [0, 16]}}, "malformed"),
        ({"a": 3}, "malformed"),
        ([1], "not a JSON object"),
        (b"{]", "not JSON"),
        (
            {
                "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
            },
            "overlap",
        ),
    ],
)
def test_bad_headers(header: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=message):
        read_header(header_file(tmp_path / "x.safetensors", header))


def test_absurd_header_length_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(ArtefactError, match="the header claims"):
        read_header(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shard_size", ["20KB", "1GB"])
def test_sharded_or_not_every_weight_is_exact(
    tmp_path: Path, dtype: torch.dtype, shard_size: str
) -> None:
    model = reference.nemotron_h().to(dtype)
    reference.save(model, tmp_path, max_shard_size=shard_size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard_size == "20KB")
    checkpoint = open_checkpoint(tmp_path)
    weights = {n.replace("model.", "backbone."): p for n, p in model.named_parameters()}
    assert set(weights) == set(checkpoint.tensors)
    for name, parameter in weights.items():
        np.testing.assert_array_equal(
            checkpoint.floats(name), parameter.detach().float().numpy(), err_msg=name
        )


def test_the_other_embedding_name_is_the_same_tensor(tmp_path: Path) -> None:
    """transformers up to 5.15 saves backbone.embedding.weight."""
    reference.save(reference.nemotron_h(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    expected = tensors["backbone.embeddings.weight"].numpy()
    tensors["backbone.embedding.weight"] = tensors.pop("backbone.embeddings.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    found = open_checkpoint(tmp_path).floats("backbone.embeddings.weight")
    np.testing.assert_array_equal(found, expected)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A healthy sharded checkpoint."""
    return reference.save(reference.nemotron_h(), tmp_path / "ckpt", max_shard_size="20KB")


def rewrite(folder: Path, name: str, change: Any) -> None:
    """Apply `change` to tensor `name` in whichever shard holds it; None removes it."""
    for shard in folder.glob("*.safetensors"):
        tensors = load_file(shard)
        if name in tensors:
            new = change(tensors.pop(name))
            if new is not None:
                tensors[name] = new.contiguous()
            save_file(tensors, shard)


UP = "backbone.layers.1.mixer.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: None, f"tensor {UP} is missing"),
        (lambda t: t[1:], r"has shape \[79, 48\], config.json implies \[80, 48\]"),
        (lambda t: t.T, r"has shape \[48, 80\]"),
        (lambda t: t.to(torch.int8), "is I8 but has no "),
    ],
)
def test_wrong_tensors_are_named(folder: Path, change: Any, message: str) -> None:
    rewrite(folder, UP, change)
    with pytest.raises(ArtefactError, match=message):
        open_checkpoint(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    def poison(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[3] = value
        return tensor

    rewrite(folder, UP, poison)
    with pytest.raises(ArtefactError, match=f"{UP} holds 1 NaN or infinite values of 3840"):
        open_checkpoint(folder).floats(UP)


def test_a_single_file_goes_before_a_stale_index(folder: Path) -> None:
    """As in transformers; the second reading says that the two contradict each other."""
    shards = [load_file(path) for path in folder.glob("*.safetensors")]
    changed = {name: torch.roll(t, 1, 0) for shard in shards for name, t in shard.items()}
    save_file(changed, folder / "model.safetensors", {"format": "pt"})
    found, model = open_checkpoint(folder), reference.load(folder)
    for name, parameter in model.named_parameters():
        hub = name.replace("model.", "backbone.")
        np.testing.assert_array_equal(found.floats(hub), parameter.detach().numpy(), err_msg=name)
    (note,) = found.notes()
    assert note.startswith("model.safetensors is read") and "remove what is stale" in note
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(changed, "model.safetensors")}))
    assert open_checkpoint(folder).notes() == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("backbone.", "model."),
        ("backbone.", "text_model.backbone."),
        ("backbone.", "base_model.model.backbone."),
        ("backbone.", ""),
    ],
)
def test_other_prefixes_get_the_cure(tmp_path: Path, old: str, new: str) -> None:
    reference.save(reference.nemotron_h(), tmp_path)
    path = tmp_path / "model.safetensors"
    renamed = {name.replace(old, new): tensor for name, tensor in load_file(path).items()}
    save_file(renamed, path, {"format": "pt"})
    with pytest.raises(ArtefactError) as caught:
        open_checkpoint(tmp_path)
    assert f"put backbone. for {new or 'the prefix that the names lack,'}" in caught.value.message
    if new:  # the cure cures
        exec("from safe" + caught.value.message.partition(": from safe")[2], {"FILE": path})
        assert open_checkpoint(tmp_path).notes() == ()


def test_shards_laid_over_a_checkpoint_get_the_cure(folder: Path, tmp_path: Path) -> None:
    first, second, *_ = sorted(folder.glob("*.safetensors"))
    kept = load_file(first)
    save_file(load_file(second) | {name: kept[name] for name in [*kept][:1]}, second)
    with pytest.raises(ArtefactError, match="merge the two: AutoModelForCausalLM"):
        open_checkpoint(folder)
    reference.load(folder).save_pretrained(tmp_path / "anew")
    assert open_checkpoint(tmp_path / "anew").notes() == ()


MTP = {f"mtp.layers.0.{name}": torch.zeros(2) for name in ("norm.weight", "eh_proj.weight")}
EXTRA = {"backbone.layers.0.mixer.extra": torch.zeros(2), "vision.w": torch.zeros(1)}


@pytest.mark.parametrize(
    ("more", "note"),
    [
        (MTP, "2 tensors are no part of this model, {}: mtp.* (2)"),
        (
            MTP | EXTRA,
            "4 tensors are no part of this model, {}: backbone.layers.0.mixer.extra, mtp.* (2), "
            "vision.w",
        ),
        ({"vision.w": torch.zeros(1)}, "1 tensor is no part of this model, {}: vision.w"),
        (
            {f"backbone.x{number}": torch.zeros(1) for number in range(7)},
            "7 tensors are no part of this model, {}: backbone.x0, backbone.x1, backbone.x2, "
            "backbone.x3, backbone.x4 and 2 more",
        ),
    ],
)
def test_what_the_model_leaves_out_is_said(
    tmp_path: Path, more: dict[str, torch.Tensor], note: str
) -> None:
    folder = reference.save(reference.nemotron_h(), tmp_path / "ckpt")
    path = folder / "model.safetensors"
    save_file(load_file(path) | more, path, {"format": "pt"})
    for fate, command in (
        ("left out", ["inspect", str(folder)]),
        ("left out", ["build", str(folder), "--backend", "native", "-o", str(tmp_path / "e")]),
        ("copied as they are", ["quantize", str(folder), "--recipe", "int8-wo", "--dry-run"]),
        ("copied as they are", ["quantize", str(folder), "--recipe", "int8-wo"]),
    ):
        output = ["-o", str(tmp_path / "q")] if command[0] == "quantize" else []
        result = CliRunner().invoke(main, [*command, *output])
        assert result.exit_code == 0, result.output
        assert note.format(fate) in result.output
    seen = json.loads(CliRunner().invoke(main, ["inspect", str(folder), "--json"]).stdout)
    assert seen["notes"] == [note.format("left out")]


def test_a_quantized_folder_s_notes_are_those_of_its_skipped_tensors(tmp_path: Path) -> None:
    folder = reference.save(reference.nemotron_h(), tmp_path / "ckpt")
    save_file(load_file(folder / "model.safetensors") | MTP, folder / "model.safetensors")
    command = ["quantize", str(folder), "--recipe", "int8-wo", "-o", str(tmp_path / "q")]
    assert CliRunner().invoke(main, command).exit_code == 0
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "q")])
    assert result.exit_code == 0, result.output
    assert "2 tensors are no part of this model, left out: mtp.* (2)" in result.stdout


def test_missing_and_odd_shards(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    healthy = index.read_text()
    for name in ["../up.safetensors", "/etc/passwd", "", ".."]:
        index.write_text(json.dumps({"weight_map": {"x": name}}))
        with pytest.raises(ArtefactError, match="not a plain file name"):
            open_checkpoint(folder)
    for text in ["{", "{}", '{"weight_map": 3}']:
        index.write_text(text)
        with pytest.raises(ArtefactError, match="malformed"):
            open_checkpoint(folder)
    index.write_text(healthy)
    shard = sorted(folder.glob("*.safetensors"))[1]
    duplicate = load_file(shard)
    shard.unlink()
    with pytest.raises(ArtefactError, match=f"shard {shard.name} is missing"):
        open_checkpoint(folder)
    other = load_file(sorted(folder.glob("*.safetensors"))[0])
    save_file(duplicate | {next(iter(other)): other[next(iter(other))]}, shard)
    with pytest.raises(ArtefactError, match=r"is in both .* Leave the file that was laid over"):
        open_checkpoint(folder)


def test_not_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"no config\.json"):
        open_checkpoint(tmp_path)
    reference.save(reference.nemotron_h(), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ArtefactError, match=r"neither model\.safetensors nor"):
        open_checkpoint(tmp_path)


def test_quantization_that_is_not_known_is_refused(folder: Path) -> None:
    path = folder / "hf_quant_config.json"
    path.write_text(json.dumps({"quantization": {"quant_algo": "W4A8_AWQ"}}))
    with pytest.raises(ConfigError, match="'W4A8_AWQ' is not supported; known: W8A16"):
        open_checkpoint(folder)
    path.write_text("[]")
    with pytest.raises(ArtefactError, match="malformed"):
        open_checkpoint(folder)


def test_the_fingerprint_follows_the_layout(folder: Path, tmp_path: Path) -> None:
    first = open_checkpoint(folder).fingerprint()
    assert open_checkpoint(folder).fingerprint() == first
    other = reference.save(reference.nemotron_h("M-*M-"), tmp_path / "other")
    assert open_checkpoint(other).fingerprint() != first
