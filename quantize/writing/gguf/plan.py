"""A checkpoint and a recipe turned into one GGUF file: each tensor's type and place, and its head.

Types follow llama.cpp's converter: norms, biases, the router and Mamba's small tensors are float32;
embeddings and head are Q8_0 in each file, as its 4 bit recipes keep them in more bits too. Q6_K,
which llama-quantize would take for those, has blocks of 256, and the 9B's rows are of 4480.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from nemotrt.engines.checkpoint.checkpoint import Checkpoint, shard_paths
from nemotrt.engines.checkpoint.gguf.blocks import GROUP
from nemotrt.engines.checkpoint.gguf.changes import stored_shape
from nemotrt.engines.checkpoint.gguf.header import Stored, aligned, head_bytes
from nemotrt.engines.checkpoint.gguf.names import Change, architecture_of, stored_name
from nemotrt.engines.model.model_config import LayerKind, ModelConfig
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.model.tensor_names import expected_shapes, linear_names, model_names
from nemotrt.errors import ConfigError
from nemotrt.quantize.conversion.layout import Entry, FilePart
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.recipes.recipe import Recipe
from nemotrt.quantize.recipes.selection import Selection
from nemotrt.quantize.writing.gguf.encode import tensor_entry
from nemotrt.quantize.writing.gguf.metadata import metadata_of

# What a recipe's linears become, and how llama.cpp calls such a file. Source: llama.h, llama_ftype.
KINDS = {Precision.INT8_WO: ("Q8_0", 7), Precision.INT4_WO: ("Q4_0", 2)}
WIDE = "Q8_0"  # of embeddings and head, and of linears with 8 bits beside others of 4
NOT_ROUNDED: Mapping[str, Path] = MappingProxyType({})


def check_recipe(recipe: Recipe, options: QuantizeOptions) -> None:
    """Raise ConfigError if a GGUF file has nothing for what the recipe or an option asks."""
    if recipe.precision not in KINDS:
        known = ", ".join(f"{precision} ({kind})" for precision, (kind, _) in KINDS.items())
        does_so = recipe.precision.inputs.is_quantized
        why = ", and llama.cpp rounds activations by itself" if does_so else ""
        raise ConfigError(
            f"--format gguf has no type for {recipe.name} ({recipe.algo}){why}. Use a recipe of "
            f"{known}."
        )
    if recipe.group_size not in (None, GROUP):
        raise ConfigError(
            f"Q4_0 has groups of {GROUP} inputs, not {recipe.group_size}: leave --group-size away, "
            "or use --format modelopt or compressed-tensors."
        )
    if options.kv_cache != "none":
        raise ConfigError(
            f"--kv-cache {options.kv_cache}: a GGUF file says nothing of the KV cache; give "
            "llama.cpp --cache-type-k and --cache-type-v."
        )


def plan_file(
    checkpoint: Checkpoint,
    selection: Selection,
    recipe: Recipe,
    target: Path,
    rounded: Mapping[str, Path] = NOT_ROUNDED,
) -> list[FilePart]:
    """Return what each shard of the source gives to the file `target`, in order.

    `rounded` is where the codes and scales are of weights that were rounded before.

    Raises:
        ConfigError: llama.cpp can't compute the model, or a type can't hold one of its tensors.
    """
    model = checkpoint.config
    _check_model(model)
    architecture, kind = architecture_of(model), KINDS[recipe.precision][0]
    groups = model.mamba.num_groups if model.mamba else 1
    heads = model.head_dim
    kinds = {name: checkpoint[name].dtype for name in linear_names(model)}  # of those that are kept
    kinds |= dict.fromkeys((model_names(model).embeddings, model_names(model).lm_head), WIDE)
    kinds |= dict.fromkeys(selection.weights, kind) | dict.fromkeys(selection.int8, WIDE)
    stored: dict[str, Stored] = {}
    entries: dict[str, list[Entry]] = {path.name: [] for path in shard_paths(checkpoint.path)}
    inside: dict[str, str] = {}  # hub name -> the tensor that holds it
    refs = [(name, checkpoint[name]) for name in expected_shapes(model)]
    for name, ref in sorted(refs, key=lambda item: (item[1].path.name, item[1].offset)):
        found = stored_name(architecture, name)
        assert found is not None  # the table has every tensor of the models that are read
        new_name, change = found
        word = kinds.get(name, "F32")
        entry = tensor_entry(name, ref, word, change, heads, rounded.get(name))
        entries[ref.path.name].append(entry)
        shape = stored_shape(change, ref.shape, groups)
        if change is Change.EXPERTS and model.moe is not None:
            shape = (model.moe.num_experts, *shape)
        if new_name in stored and stored[new_name] != Stored(new_name, word, shape):
            raise ConfigError(f"{name} is {word}, other experts are {stored[new_name].kind}.")
        stored[new_name] = Stored(new_name, word, shape)
        inside[name] = new_name
    head = head_bytes(metadata_of(checkpoint, KINDS[recipe.precision][1], stored), stored.values())
    return _parts(target.name, head, list(stored.values()), entries, inside)


def _parts(
    target: str,
    head: bytes,
    tensors: list[Stored],
    entries: dict[str, list[Entry]],
    inside: dict[str, str],
) -> list[FilePart]:
    """Return the parts of the file, each tensor placed."""
    places, end = {}, len(head)
    for tensor in tensors:
        places[tensor.name] = end
        end += aligned(tensor.num_bytes)
    last: dict[str, int] = dict.fromkeys(places, 0)
    parts = []
    offsets = {}
    sizes = {entry.name: entry.num_bytes for shard in entries.values() for entry in shard}
    for name in sorted(inside, key=_in_order):
        offsets[name] = places[inside[name]] + last[inside[name]]
        last[inside[name]] += sizes[name]
    for number, (shard, own) in enumerate(entries.items()):
        where = {entry.name: offsets[entry.name] for entry in own}
        parts.append(FilePart(shard, target, head if not number else b"", tuple(own), where, end))
    return parts


def _in_order(name: str) -> tuple[int, ...]:
    """Sort the experts of a tensor by their numbers."""
    return tuple(int(word) for word in name.split(".") if word.isdecimal())


def _check_model(model: ModelConfig) -> None:
    """Raise ConfigError if llama.cpp would compute something else."""
    if model.mamba is not None and model.mamba.is_dt_limited:
        low, high = model.mamba.time_step_limit
        raise ConfigError(
            f"time_step_limit [{low}, {high}]: llama.cpp does not limit the time step of "
            f"{model.model_type}, and would compute another model. Use another --format."
        )
    if model.moe is not None and LayerKind.MLP in model.layers:
        raise ConfigError(
            "llama.cpp has no hybrid with both experts and plain MLP blocks. Use another --format."
        )
