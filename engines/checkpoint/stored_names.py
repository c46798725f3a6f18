"""What the names of stored tensors tell: which the model leaves out, and where a missing one is."""

from collections import Counter
from collections.abc import Iterable, Mapping

SCALES = ("weight_scale", "input_scale", "pre_quant_scale", "k_scale", "v_scale")
MODEL_ROOTS = ("backbone", "model")  # of the two architectures' own names
MAX_LISTED = 5
# For a user's Python; FILE is theirs to fill in.
RENAME = (
    "from safetensors.torch import load_file, save_file; save_file({{"
    "name.replace('{old}', '{new}', 1): tensor for name, tensor in load_file(FILE).items()}}, FILE,"
    " {{'format': 'pt'}})"
)


def left_out(stored: Iterable[str], used: Iterable[str]) -> list[str]:
    """Return the stored names that are neither used nor a scale of a used weight, in order."""
    used = set(used)
    return sorted(name for name in stored if name not in used and not _is_scale(name, used))


def _is_scale(name: str, used: set[str]) -> bool:
    """Whether `name` is a scale of a weight in `used`."""
    module, _, leaf = name.rpartition(".")
    return leaf in SCALES and f"{module}.weight" in used


def left_out_note(names: list[str], fate: str = "left out") -> str | None:
    """Return one line that says which tensors no layer of the model has; None without any.

    A whole tree of them, such as the layers of multi-token prediction, is named by its root.
    """
    if not names:
        return None
    roots = Counter(name.partition(".")[0] for name in names)
    by_root = {name: name.partition(".")[0] for name in names}
    listed = dict.fromkeys(
        f"{root}.* ({roots[root]})" if root not in MODEL_ROOTS and roots[root] > 1 else name
        for name, root in by_root.items()
    )
    more = f" and {len(listed) - MAX_LISTED} more" if len(listed) > MAX_LISTED else ""
    what = "1 tensor is" if len(names) == 1 else f"{len(names)} tensors are"
    return f"{what} no part of this model, {fate}: {', '.join([*listed][:MAX_LISTED])}{more}"


def missing_message(name: str, stored: Mapping[str, object]) -> str:
    """Return what to say of a tensor that is missing: by which name it may be there, and a cure."""
    rest = name.partition(".")[2]
    near = [other for other in stored if other == rest or other.endswith(f".{rest}")]
    if not near:
        return f"tensor {name} is missing."
    ours, theirs = name.removesuffix(rest), near[0].removesuffix(rest)
    message = f"tensor {name} is missing, but {near[0]} is there: put {ours} for"
    if not theirs:
        return f"{message} the prefix that the names lack, in every shard."
    return f"{message} {theirs} in every shard: {RENAME.format(old=theirs, new=ours)}"
