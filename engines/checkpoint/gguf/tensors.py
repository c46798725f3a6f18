"""A GGUF file's tensors by the hub's names, with what llama.cpp's converter did to them undone.

Source: llama.cpp's conversion/{mamba,granite,nemotron,llama,qwen}.py and gguf-py's tensor_mapping:
A is -exp(A_log); A and D have an axis of one more, the conv one less; the gated norm has its groups
apart; rows of q and k are interleaved within each head, in nemotron_h.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from nemotrt.engines.checkpoint.gguf.blocks import BY_WORD
from nemotrt.engines.checkpoint.gguf.file import GgufFile, GgufTensor
from nemotrt.engines.checkpoint.quantized.decoded import Floats, decoded
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.errors import ArtefactError, ConfigError

ARCHITECTURES = ("nemotron_h", "qwen3")
BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
OUTSIDE = {
    "nemotron_h": {
        "token_embd.weight": "backbone.embeddings.weight",
        "output_norm.weight": "backbone.norm_f.weight",
        "output.weight": "lm_head.weight",
    },
    "qwen3": {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    },
}
INSIDE = {
    "nemotron_h": {
        "attn_norm.weight": "norm.weight",
        "ssm_in.weight": "mixer.in_proj.weight",
        "ssm_conv1d.weight": "mixer.conv1d.weight",
        "ssm_conv1d.bias": "mixer.conv1d.bias",
        "ssm_dt.bias": "mixer.dt_bias",
        "ssm_a": "mixer.A_log",
        "ssm_d": "mixer.D",
        "ssm_norm.weight": "mixer.norm.weight",
        "ssm_out.weight": "mixer.out_proj.weight",
        "attn_q.weight": "mixer.q_proj.weight",
        "attn_k.weight": "mixer.k_proj.weight",
        "attn_v.weight": "mixer.v_proj.weight",
        "attn_output.weight": "mixer.o_proj.weight",
        "ffn_up.weight": "mixer.up_proj.weight",
        "ffn_down.weight": "mixer.down_proj.weight",
    },
    "qwen3": {
        "attn_norm.weight": "input_layernorm.weight",
        "attn_q.weight": "self_attn.q_proj.weight",
        "attn_k.weight": "self_attn.k_proj.weight",
        "attn_v.weight": "self_attn.v_proj.weight",
        "attn_output.weight": "self_attn.o_proj.weight",
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
        "ffn_norm.weight": "post_attention_layernorm.weight",
        "ffn_gate.weight": "mlp.gate_proj.weight",
        "ffn_up.weight": "mlp.up_proj.weight",
        "ffn_down.weight": "mlp.down_proj.weight",
    },
}
LAYERS = {"nemotron_h": "backbone.layers", "qwen3": "model.layers"}


def check_architecture(file: GgufFile) -> str:
    """Return the file's architecture, one that is known here.

    Raises:
        ConfigError: it is another.
    """
    found = file.architecture
    if found not in ARCHITECTURES:
        raise ConfigError(
            f"{file.path} is a {found!r} model; GGUF files of {', '.join(ARCHITECTURES)} are read. "
            "Give the Hugging Face checkpoint that it was converted from."
        )
    return found


def hub_tensors(file: GgufFile) -> Iterator[tuple[str, TensorRef]]:
    """Yield each tensor by its hub name; one without such a name keeps its own."""
    architecture = check_architecture(file)
    for name, tensor in file.tensors.items():
        hub_name = _hub_name(architecture, name)
        yield hub_name, _restored(file, architecture, hub_name, tensor)


def _hub_name(architecture: str, name: str) -> str:
    """Return the hub's name of a tensor of llama.cpp's."""
    found = BLOCK.fullmatch(name)
    if found is None:
        return OUTSIDE[architecture].get(name, name)
    leaf = INSIDE[architecture].get(found[2])
    return f"{LAYERS[architecture]}.{int(found[1])}.{leaf}" if leaf else name


def _restored(file: GgufFile, architecture: str, hub_name: str, tensor: GgufTensor) -> TensorRef:
    """Return a tensor as the hub has it: shape, order of rows, values."""
    leaf, ref = hub_name.rpartition("mixer.")[2], _stored(file, tensor)
    if architecture != "nemotron_h":
        return ref
    if leaf in ("D", "norm.weight") and "mixer." in hub_name:
        return replace(ref, shape=(int(np.prod(ref.shape)),))
    if leaf == "conv1d.weight":
        return replace(ref, shape=(ref.shape[0], 1, ref.shape[-1]))
    if leaf == "A_log":
        flat = replace(ref, shape=(int(np.prod(ref.shape)),))
        return decoded(ref.name, flat.shape, (flat,), partial(_a_log, flat))
    if leaf in ("q_proj.weight", "k_proj.weight"):
        key = "attention.key_length"
        head_dim = file.get(f"{architecture}.{key}")
        if not isinstance(head_dim, int) or head_dim < 2 or head_dim % 2:
            raise ArtefactError(f"{file.path}: {architecture}.{key} is {head_dim!r}.")
        if ref.shape[0] % head_dim:
            raise ArtefactError(f"{file.path}: {tensor.name} has no whole heads of {head_dim}.")
        return decoded(ref.name, ref.shape, ref.parts, partial(_unpermuted, ref, head_dim))
    return ref


def _stored(file: GgufFile, tensor: GgufTensor) -> TensorRef:
    """Return a tensor of floats as it lies there; one of blocks as what they stand for."""
    kind, place = BY_WORD[tensor.kind], (file.path, tensor.offset, tensor.num_bytes)
    if kind.decode is None:
        return TensorRef(tensor.name, kind.safetensors, tensor.shape, *place)
    if len(tensor.shape) != 2:
        raise ArtefactError(
            f"{file.path}: {tensor.name} has {len(tensor.shape)} axes of {kind.word}; matrices "
            "alone are read in blocks."
        )
    row_bytes = tensor.shape[1] // kind.block_size * kind.block_bytes
    raw = TensorRef(tensor.name, "U8", (tensor.shape[0], row_bytes), *place)
    decode = kind.decode

    def rows(part: slice) -> Floats:
        blocks = np.ascontiguousarray(raw.map()[part]).reshape(-1, kind.block_bytes)
        return decode(blocks).reshape(part.stop - part.start, tensor.shape[1])

    return decoded(tensor.name, tensor.shape, (raw,), rows)


def _a_log(ref: TensorRef, part: slice) -> Floats:
    """Return log(-A)."""
    values = ref.map()[part].astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = np.log(-values)
    return result


def _unpermuted(ref: TensorRef, head_dim: int, part: slice) -> Floats:
    """Return rows in the hub's order: its row h, i + half * j is stored as h, 2 * i + j."""
    rows = np.arange(part.start, part.stop)
    head, inside = rows // head_dim, rows % head_dim
    half = head_dim // 2
    stored = head * head_dim + 2 * (inside % half) + inside // half
    first, last = int(head[0]) * head_dim, (int(head[-1]) + 1) * head_dim
    found: Floats = ref.rows(slice(first, last))[stored - first].astype(np.float32)
    return found
