"""Random small models of both architectures, for hypothesis to draw."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from support import reference


@dataclass(frozen=True)
class Sizes:
    """What a model's dimensions are drawn from."""

    intermediate: tuple[int, ...]
    head_dim: tuple[int, ...]
    mamba_head_dim: tuple[int, ...]
    state: tuple[int, ...]


EVEN = Sizes((8, 36, 64), (8, 16, 32), (4, 12, 20), (8, 16, 24))
ODD = Sizes((8, 36, 65), (6, 16, 36), (4, 7, 20), (8, 11, 24))  # fill no vector or panel


@st.composite
def models(draw: st.DrawFn, sizes: Sizes = EVEN) -> Any:
    """Random small models of both architectures."""
    kv_heads = draw(st.integers(1, 3))
    shared = {
        "seed": draw(st.integers(0, 2**31)),
        "vocab_size": draw(st.integers(11, 130)),
        "hidden_size": draw(st.sampled_from([16, 24, 40, 72])),
        "intermediate_size": draw(st.sampled_from(sizes.intermediate)),
        "num_key_value_heads": kv_heads,
        "num_attention_heads": kv_heads * draw(st.integers(1, 3)),
        "head_dim": draw(st.sampled_from(sizes.head_dim)),
    }
    if draw(st.booleans()):
        tied = draw(st.booleans())
        return reference.qwen3(draw(st.integers(1, 2)), tie_word_embeddings=tied, **shared)
    groups = draw(st.integers(1, 3))
    return reference.nemotron_h(
        draw(st.text("M-*", min_size=1, max_size=5)),
        n_groups=groups,
        mamba_num_heads=groups * draw(st.integers(1, 3)),
        mamba_head_dim=draw(st.sampled_from(sizes.mamba_head_dim)),
        ssm_state_size=draw(st.sampled_from(sizes.state)),
        conv_kernel=draw(st.integers(2, 5)),
        chunk_size=draw(st.sampled_from([4, 16])),
        **shared,
    )
