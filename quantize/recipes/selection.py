"""Which linears of a model a recipe quantizes, and which modules it names as left alone."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from nemotrt.engines.model.model_config import LayerKind, ModelConfig
from nemotrt.engines.model.tensor_names import LATENT, blocks, linear_names, of_any_expert
from nemotrt.errors import ConfigError, unknown_name
from nemotrt.quantize.recipes.recipe import Recipe

# Linears that engines run as one. Source: the models in vLLM and TensorRT-LLM; vLLM refuses a part
# that is quantized alone, TensorRT-LLM takes its codes for 16 bit weights.
FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


# Whose fused linears have one scale per tensor together: the common maximum, to which vLLM and
# TensorRT-LLM would requantize scales of their own. ModelOpt 0.47's export leaves FP8 scales apart
# (_fuse_shared_input_modules); Nemotron-H, whose recipes keep attention, stays as it writes it.
COMMON_SCALE_TYPES = ("qwen3",)


@dataclass(frozen=True, slots=True)
class Selection:
    """Weights to quantize, in model order, and the exact names of the modules left alone."""

    weights: tuple[str, ...]
    exclude: tuple[str, ...]
    int8: frozenset[str] = frozenset()  # of the weights, those with 8 bits beside others of 4

    @property
    def is_mixed(self) -> bool:
        """Whether some weights have other codes than the recipe's."""
        return bool(self.int8)


def select(
    config: ModelConfig,
    recipe: Recipe,
    *,
    keep_feeders: bool = False,
    int8: Collection[str] = (),
) -> Selection:
    """Return what `recipe` quantizes in the model; `keep_feeders` spares attention's Mamba feeders.

    `int8` are weights that get 8 bits where the recipe's have 4.

    Raises:
        ConfigError: the recipe does not place every linear of the model in quantize or keep, or
            there are no feeders to spare.
    """
    quantized = recipe.quantize.get(config.model_type)
    if quantized is None:
        known = ", ".join(recipe.quantize) or "none"
        raise ConfigError(
            f"recipe {recipe.name} does not cover model type {config.model_type}; it has {known}."
        )
    kept = recipe.keep.get(config.model_type, {})
    spared = _feeders(config) if keep_feeders else frozenset()
    if keep_feeders and not spared:
        raise ConfigError("--keep attention-feeders: no Mamba layer of this model feeds attention.")
    every = linear_names(config)
    _check_leaves(recipe.name, config, quantized)
    weights = []
    for position, block in enumerate(blocks(config)):
        for name in (name for name in every if name.startswith(block.prefix)):
            leaf = of_any_expert(name.removeprefix(block.prefix).removesuffix(".weight"))
            if leaf in quantized.get(block.kind, ()):
                if position not in spared:
                    weights.append(name)
            elif leaf not in kept.get(block.kind, ()):
                raise ConfigError(
                    f"recipe {recipe.name} says neither quantize nor keep for "
                    f"{config.model_type} {block.kind} {leaf}."
                )
    if not weights:
        raise ConfigError(
            f"recipe {recipe.name} quantizes no linear of this model; "
            "choose another: nemotrt quantize --list-recipes."
        )
    if split := next(split_fused(config, set(weights)), None):
        raise ConfigError(f"recipe {recipe.name}: {split}; quantize or keep them together.")
    if split := next(split_fused(config, set(int8)), None):
        raise ConfigError(f"int8 beside int4: {split}; give them the same bits.")
    exclude = _exclude(config, every, set(weights))
    return Selection(tuple(weights), exclude, frozenset(int8).intersection(weights))


def _check_leaves(
    recipe: str, config: ModelConfig, quantized: dict[LayerKind, tuple[str, ...]]
) -> None:
    """Raise ConfigError if a recipe would quantize a linear that its kind of block hasn't."""
    every = linear_names(config)
    for block in blocks(config):
        prefix = block.prefix
        names = [name[len(prefix) : -len(".weight")] for name in every if name.startswith(prefix)]
        known = list(dict.fromkeys(map(of_any_expert, names)))
        for leaf in quantized.get(block.kind, ()):
            if leaf not in known and leaf not in LATENT:  # which only some models have
                raise unknown_name(f"linear of {block.kind} in recipe {recipe}", leaf, known)


def split_fused(config: ModelConfig, weights: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with each set of fused linears of which `weights` has some, not all."""
    every = set(linear_names(config))
    for block in blocks(config):
        for leaves in FUSED:
            names = {leaf: block.name(f"{leaf}.weight") for leaf in leaves}
            chosen = [leaf for leaf, name in names.items() if name in weights]
            if every.issuperset(names.values()) and 0 < len(chosen) < len(leaves):
                parts = f"{block.prefix}{{{','.join(leaves)}}}"
                yield f"engines run {parts} as one, but only {', '.join(chosen)} is quantized"


def fused_together(config: ModelConfig, weights: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the weights in model order, those that engines run as one together."""
    every, seen = set(weights), set[str]()
    found: list[tuple[str, ...]] = []
    for block in blocks(config):
        fused = [tuple(block.name(f"{leaf}.weight") for leaf in leaves) for leaves in FUSED]
        for name in (name for name in weights if name.startswith(block.prefix)):
            own = (group for group in fused if name in group and every.issuperset(group))
            if name not in seen:
                found.append(next(own, (name,)))
                seen.update(found[-1])
    return found


def sharing_scale(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Return weight -> the weights with which it has one scale per tensor, itself among them."""
    if config.model_type not in COMMON_SCALE_TYPES:
        return {}
    every = set(linear_names(config))
    groups = (
        tuple(block.name(f"{leaf}.weight") for leaf in leaves)
        for block in blocks(config)
        for leaves in FUSED
    )
    return {name: group for group in groups if every.issuperset(group) for name in group}


def _feeders(config: ModelConfig) -> frozenset[int]:
    """Return the positions of the Mamba blocks that come last before an attention block.

    Source: the Nemotron-3 Nano recipe keeps the Mamba layers that feed attention in 16 bit.
    """
    feeders, last_mamba = set(), None
    for position, kind in enumerate(config.layers):
        if kind is LayerKind.MAMBA:
            last_mamba = position
        elif kind is LayerKind.ATTENTION and last_mamba is not None:
            feeders.add(last_mamba)
    return frozenset(feeders)


def _exclude(config: ModelConfig, every: list[str], weights: set[str]) -> tuple[str, ...]:
    """Return exact module names, the one spelling that all loaders match alike."""
    exclude = ["lm_head"]
    for block in blocks(config):
        if block.kind is LayerKind.MAMBA:
            exclude.append(block.name("conv1d"))
        if block.kind is LayerKind.MOE:
            exclude.append(block.name("gate"))  # the router, in 16 or 32 bits always
    exclude += [name.removesuffix(".weight") for name in every if name not in weights]
    return tuple(sorted(exclude))
