"""What a model is: its dimensions, its layers in order, and the sizes that follow from them."""

import math
from dataclasses import dataclass, replace
from enum import StrEnum


class LayerKind(StrEnum):
    """The kinds of residual block; each is `x + block(norm(x))`."""

    MAMBA = "mamba"
    MLP = "mlp"
    ATTENTION = "attention"
    MOE = "moe"


PATTERN_LETTERS = {
    "M": LayerKind.MAMBA,
    "-": LayerKind.MLP,
    "*": LayerKind.ATTENTION,
    "E": LayerKind.MOE,
}


class Activation(StrEnum):
    """The non-linearity of an MLP block."""

    RELU2 = "relu2"  # down(relu(up(x))^2)
    SWIGLU = "swiglu"  # down(silu(gate(x)) * up(x))


@dataclass(frozen=True, slots=True)
class MambaConfig:
    """The dimensions of a Mamba-2 block.

    Source: Mamba-2 paper (arXiv 2405.21060); names as in Hugging Face `nemotron_h`.
    """

    num_heads: int
    head_dim: int
    state_size: int
    num_groups: int
    conv_kernel: int
    chunk_size: int = 128
    time_step_limit: tuple[float, float] = (0.0, math.inf)

    @property
    def inner_size(self) -> int:
        """Channels of x and z: heads x head_dim (not expand x hidden)."""
        return self.num_heads * self.head_dim

    @property
    def conv_dim(self) -> int:
        """Channels that the causal convolution sees: x, B and C."""
        return self.inner_size + 2 * self.num_groups * self.state_size

    @property
    def in_proj_size(self) -> int:
        """Rows of in_proj: z, x, B, C, dt."""
        return self.inner_size + self.conv_dim + self.num_heads

    @property
    def ssm_state_elements(self) -> int:
        """Elements of one layer's state for one sequence, [heads, head_dim, state]."""
        return self.inner_size * self.state_size

    @property
    def conv_state_elements(self) -> int:
        """Elements of one layer's convolution window for one sequence, [kernel - 1, conv_dim]."""
        return (self.conv_kernel - 1) * self.conv_dim

    @property
    def is_dt_limited(self) -> bool:
        """Whether the time step is clamped after softplus."""
        return self.time_step_limit != (0.0, math.inf)

    @property
    def finite_time_step_limit(self) -> tuple[float, float]:
        """The limits as float32 holds them: 3e38, which no time step reaches, is no limit."""
        low, high = (min(limit, 3e38) for limit in self.time_step_limit)
        return low, high


@dataclass(frozen=True, slots=True)
class MoeConfig:
    """The dimensions of a block of experts: some that a router chooses, and one that all share.

    Source: DeepSeek-V3's router (arXiv 2412.19437, section 2.1.2); names as in Hugging Face
    `nemotron_h`. With a latent size, the chosen experts work in a projection of the block's input.
    """

    num_experts: int
    num_chosen: int  # for each token
    intermediate_size: int
    shared_intermediate_size: int
    latent_size: int | None = None
    num_groups: int = 1
    num_chosen_groups: int = 1
    is_normalized: bool = True  # the chosen experts' weights add up to `scaling_factor`
    scaling_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder as a list of residual blocks, read from a Hugging Face config.json.

    `hidden_size` is the residual width; `num_attention_heads * head_dim` need not equal it.
    A dense transformer layer is two blocks here: attention, then MLP.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    layers: tuple[LayerKind, ...]
    intermediate_size: int
    activation: Activation
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    norm_eps: float
    tie_word_embeddings: bool
    max_position_embeddings: int
    mamba: MambaConfig | None = None
    moe: MoeConfig | None = None
    rope_theta: float | None = None
    has_qk_norm: bool = False
    eos_token_ids: tuple[int, ...] = ()
    dtype: str = "bfloat16"

    def computes_as(self, other: "ModelConfig") -> bool:
        """Whether both compute the same of the same weights.

        Files of other formats tell no chunks, limits or types; they change no result.
        """
        return _mathematics(self) == _mathematics(other)

    def count(self, kind: LayerKind) -> int:
        """Number of blocks of one kind."""
        return self.layers.count(kind)

    @property
    def num_attention_layers(self) -> int:
        """Blocks that hold a KV cache."""
        return self.count(LayerKind.ATTENTION)

    @property
    def num_mamba_layers(self) -> int:
        """Blocks that hold an SSM and a convolution state."""
        return self.count(LayerKind.MAMBA)

    @property
    def q_size(self) -> int:
        """Width of the query projection."""
        return self.num_attention_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of the key (or value) projection."""
        return self.num_key_value_heads * self.head_dim

    @property
    def kv_elements_per_token(self) -> int:
        """Cached K and V elements of one token, over the attention layers only."""
        return 2 * self.kv_size * self.num_attention_layers

    @property
    def ssm_state_elements(self) -> int:
        """SSM state elements of one sequence, over all Mamba layers."""
        return self.mamba.ssm_state_elements * self.num_mamba_layers if self.mamba else 0

    @property
    def conv_state_elements(self) -> int:
        """Convolution state elements of one sequence, over all Mamba layers."""
        return self.mamba.conv_state_elements * self.num_mamba_layers if self.mamba else 0

    @property
    def pattern(self) -> str:
        """The blocks as a string in the hub's spelling, a letter each."""
        letters = {kind: letter for letter, kind in PATTERN_LETTERS.items()}
        return "".join(letters[kind] for kind in self.layers)


def _mathematics(config: ModelConfig) -> ModelConfig:
    """Return the config without what changes no logit."""
    mamba = config.mamba and replace(config.mamba, chunk_size=1)
    width = config.intermediate_size if LayerKind.MLP in config.layers else 1
    return replace(
        config,
        mamba=mamba,
        intermediate_size=width,
        max_position_embeddings=1,
        eos_token_ids=(),
        dtype="",
    )
