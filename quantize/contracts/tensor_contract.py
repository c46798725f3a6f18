"""Checks which tensors a quantized checkpoint has: every one of the model's, and no other."""

from collections.abc import Iterator

from nemotrt.engines.checkpoint.checkpoint import INDEX_FILE, hub_name, weight_map
from nemotrt.engines.checkpoint.codes.packed import num_words
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.engines.model.tensor_names import blocks, expected_shapes
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.reading.quantized_folder import QuantizedFolder

# What loaders skip: a tied head that is stored all the same, rotary tables, multi-token prediction.
SKIPPED_ENDS = ("lm_head.weight", "rotary_emb.inv_freq")
SKIPPED_STARTS = ("mtp.",)


def tensor_faults(folder: QuantizedFolder) -> Iterator[str]:
    """Yield each tensor that is missing, of a wrong shape or type, or not one of this model's.

    A name that no loader knows stops vLLM; TensorRT-LLM takes any with a capital A or D for an SSM
    parameter. Scales are only looked for here; linear_contract.py and kv_contract.py check them.
    """
    shapes = expected_shapes(folder.model)
    codes = {module: folder.codes(module) for module in folder.linears}
    quantized = {module: ref for module, ref in codes.items() if ref is not None}
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        if module in quantized:
            yield from _code_faults(folder, module, quantized[module], shape)
        elif module not in codes or folder.excludes(module):
            yield from _float_faults(name, folder.tensors.get(name), shape)
    known = set(shapes) | set(_scale_names(folder, quantized))
    for name in folder.tensors:
        if name in known or is_skipped(name):
            continue
        yield f"{name} is no tensor of this model in this format: loaders refuse or misread it"
    yield from _index_faults(folder)


def is_skipped(name: str) -> bool:
    """Whether loaders pass over a tensor of that name."""
    return name.endswith(SKIPPED_ENDS) or name.startswith(SKIPPED_STARTS)


def _float_faults(name: str, ref: TensorRef | None, shape: tuple[int, ...]) -> Iterator[str]:
    """Yield what is wrong with a tensor that is not quantized."""
    if ref is None:
        yield f"{name} is missing"
    elif ref.shape != shape or not ref.is_float:
        yield f"{name} is {ref.dtype} {list(ref.shape)}, expected floats {list(shape)}"


def _code_faults(
    folder: QuantizedFolder, module: str, ref: TensorRef, shape: tuple[int, ...]
) -> Iterator[str]:
    """Yield what is wrong with the type and shape of a quantized weight's codes."""
    numbers = folder.precision.weights.format
    is_int8 = folder.bits(module) == NumberFormat.INT8.num_bits  # maybe beside int4
    dtype = (NumberFormat.INT8 if is_int8 and folder.has_groups else numbers).safetensors
    if folder.layout.packs(folder.precision):
        dtype, shape = "I32", (shape[0], num_words(shape[1], folder.bits(module)))
    elif folder.has_groups and not is_int8:
        dtype, shape = "U8", (shape[0] // 2, shape[1])
    if (ref.dtype, ref.shape) != (dtype, shape):
        found = f"{ref.dtype} {list(ref.shape)}"
        yield f"the codes of {module} are {found}, expected {dtype} {list(shape)}"


def _scale_names(folder: QuantizedFolder, quantized: dict[str, TensorRef]) -> Iterator[str]:
    """Yield the names that this format may have beside the model's own."""
    leaves = ["weight_scale"]
    if folder.precision.has_input_scale:
        leaves.append("input_scale")
    if folder.layout.packs(folder.precision):
        leaves += ["weight_packed", "weight_shape"]
    is_modelopt = folder.layout is CheckpointFormat.MODELOPT
    if is_modelopt and (folder.precision.is_smoothed or folder.has_groups):
        leaves.append("pre_quant_scale")
    for module in quantized:
        yield from (f"{module}.{leaf}" for leaf in leaves)
    for block in blocks(folder.model):
        for leaf in ("k_scale", "v_scale"):
            yield block.name(folder.layout.cache_scale(leaf))


def _index_faults(folder: QuantizedFolder) -> Iterator[str]:
    """Yield the first tensor that the index has in another shard than it is in, or not at all."""
    if not (folder.path / INDEX_FILE).is_file():
        return
    told = {hub_name(name): shard for name, shard in weight_map(folder.path).items()}
    for name in sorted(told.keys() | folder.tensors.keys()):
        ref = folder.tensors.get(name)
        if ref is None or told.get(name) != ref.path.name:
            place = ref.path.name if ref else "no shard"
            yield f"{INDEX_FILE} has {name} in {told.get(name, 'no shard')}, it is in {place}"
            return
