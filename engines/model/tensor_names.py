"""The hub's tensor names: one Block a layer, and the shape that the config implies for each."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nemotrt.engines.model.model_config import Activation, LayerKind, ModelConfig

LATENT = ("fc1_latent_proj", "fc2_latent_proj")  # around experts that work in a latent space
EXPERT = re.compile(r"(?<=\bexperts\.)\d+\.")  # the number of one, in a name


def of_any_expert(name: str) -> str:
    """Return a name without the number of its expert: all experts of a block have the same."""
    return EXPERT.sub("", name)


@dataclass(frozen=True, slots=True)
class Block:
    """One residual block: where its tensors are, and its number among the blocks of its kind."""

    kind: LayerKind
    index: int  # among blocks of the same kind: names the state tensors
    norm: str  # full name of the norm's weight
    prefix: str  # full name up to and with the last dot before the leaf

    def name(self, leaf: str) -> str:
        """Return the full tensor name of `leaf`."""
        return self.prefix + leaf

    def experts(self, leaf: str, count: int) -> list[str]:
        """Return the full names of one linear of each of `count` experts."""
        return [self.name(f"experts.{number}.{leaf}.weight") for number in range(count)]


@dataclass(frozen=True, slots=True)
class ModelNames:
    """The names outside the blocks."""

    embeddings: str
    final_norm: str
    lm_head: str


def model_names(config: ModelConfig) -> ModelNames:
    """Return the names of the tensors outside the blocks."""
    if config.model_type == "nemotron_h":
        embeddings, norm = "backbone.embeddings.weight", "backbone.norm_f.weight"
    else:
        embeddings, norm = "model.embed_tokens.weight", "model.norm.weight"
    head = embeddings if config.tie_word_embeddings else "lm_head.weight"
    return ModelNames(embeddings, norm, head)


def blocks(config: ModelConfig) -> Iterator[Block]:
    """Yield the blocks of the model in order."""
    counts = dict.fromkeys(LayerKind, 0)
    for position, kind in enumerate(config.layers):
        if config.model_type == "nemotron_h":
            layer = f"backbone.layers.{position}."
            norm, prefix = "norm.weight", "mixer."
        else:
            layer = f"model.layers.{position // 2}."
            norm, prefix = (
                ("input_layernorm.weight", "self_attn.")
                if kind is LayerKind.ATTENTION
                else ("post_attention_layernorm.weight", "mlp.")
            )
        yield Block(kind, counts[kind], layer + norm, layer + prefix)
        counts[kind] += 1


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight that the model has, by hub name."""
    names = model_names(config)
    hidden = config.hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        names.embeddings: (config.vocab_size, hidden),
        names.final_norm: (hidden,),
        names.lm_head: (config.vocab_size, hidden),
    }
    for block in blocks(config):
        shapes[block.norm] = (hidden,)
        for leaf, shape in _block_shapes(config, block.kind).items():
            shapes[block.name(leaf)] = shape
    return shapes


def linear_names(config: ModelConfig) -> list[str]:
    """Return the weights of every linear inside the blocks, in order: what quantizers consider."""
    return [
        block.name(leaf)
        for block in blocks(config)
        for leaf in _block_shapes(config, block.kind)
        if leaf.endswith("_proj.weight")
    ]


def _block_shapes(config: ModelConfig, kind: LayerKind) -> dict[str, tuple[int, ...]]:
    """Return leaf name -> shape for one block."""
    hidden = config.hidden_size
    if kind is LayerKind.MLP:
        shapes: dict[str, tuple[int, ...]] = {
            "up_proj.weight": (config.intermediate_size, hidden),
            "down_proj.weight": (hidden, config.intermediate_size),
        }
        if config.activation is Activation.SWIGLU:
            shapes["gate_proj.weight"] = (config.intermediate_size, hidden)
        return shapes
    if kind is LayerKind.ATTENTION:
        shapes = {
            "q_proj.weight": (config.q_size, hidden),
            "k_proj.weight": (config.kv_size, hidden),
            "v_proj.weight": (config.kv_size, hidden),
            "o_proj.weight": (hidden, config.q_size),
        }
        if config.has_qk_norm:
            shapes |= {"q_norm.weight": (config.head_dim,), "k_norm.weight": (config.head_dim,)}
        return shapes
    if kind is LayerKind.MOE:
        return _moe_shapes(config)
    mamba = config.mamba
    assert mamba is not None  # the reader builds it whenever a Mamba layer exists
    return {
        "in_proj.weight": (mamba.in_proj_size, hidden),
        "conv1d.weight": (mamba.conv_dim, 1, mamba.conv_kernel),
        "conv1d.bias": (mamba.conv_dim,),
        "dt_bias": (mamba.num_heads,),
        "A_log": (mamba.num_heads,),
        "D": (mamba.num_heads,),
        "norm.weight": (mamba.inner_size,),
        "out_proj.weight": (hidden, mamba.inner_size),
    }


def _moe_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return leaf name -> shape for a block of experts."""
    moe, hidden = config.moe, config.hidden_size
    assert moe is not None  # the reader builds it whenever a block of experts exists
    width = moe.latent_size or hidden
    shapes: dict[str, tuple[int, ...]] = {
        "gate.weight": (moe.num_experts, hidden),
        "gate.e_score_correction_bias": (moe.num_experts,),
        "shared_experts.up_proj.weight": (moe.shared_intermediate_size, hidden),
        "shared_experts.down_proj.weight": (hidden, moe.shared_intermediate_size),
    }
    if moe.latent_size is not None:
        into, out_of = LATENT
        shapes |= {f"{into}.weight": (width, hidden), f"{out_of}.weight": (hidden, width)}
    for number in range(moe.num_experts):
        shapes[f"experts.{number}.up_proj.weight"] = (moe.intermediate_size, width)
        shapes[f"experts.{number}.down_proj.weight"] = (width, moe.intermediate_size)
    return shapes
