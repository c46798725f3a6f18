"""The bytes that one request holds: KV by token, SSM and convolution state by sequence."""

import math
from dataclasses import dataclass

from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.profiles.planning.sources.windows import Windows
from nemotrt.profiles.planning.time.drafts import Drafts, noted_elements
from nemotrt.profiles.planning.time.engine_profile import DraftStates, EngineProfile, Paging

# vLLM rounds the attention block up so that one page of it holds one Mamba layer's state.
# Source: vllm-project/vllm#24280 (672-token blocks for Nano-9B-v2); multiples of 16 tokens.
PAGE_TOKEN_MULTIPLE = 16
# A sequence of which nothing grows any more: all layers have a window.
LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class RequestMemory:
    """What a sequence costs under one engine's paging, on one of `tp` GPUs."""

    kv_cache_bytes_per_token: int
    ssm_state_bytes: int
    conv_state_bytes: int
    paging: Paging
    tokens_per_block: int
    spare_bytes: int = 0  # of states, beside those that are read
    page_bytes: int = 0  # of all layers of a group, unified pages only
    pages_per_block: int = 1  # groups of attention layers
    num_state_pages: int = 0  # groups of Mamba layers
    window_tokens: int = 0  # what layers with a sliding window keep of a sequence; 0: all
    window_bytes_per_token: int = 0  # of those layers

    def total_bytes(self, num_tokens: int) -> int:
        """Return the bytes of a sequence that holds `num_tokens` tokens."""
        num_blocks = math.ceil(num_tokens / self.tokens_per_block)
        if self.page_bytes:
            num_pages = num_blocks * self.pages_per_block + self.num_state_pages
            return num_pages * self.page_bytes
        kv_bytes = num_blocks * self.tokens_per_block * self.kv_cache_bytes_per_token
        kv_bytes -= max(num_blocks - self._window_blocks, 0) * self._window_block_bytes
        return kv_bytes + self.own_state_bytes + self.spare_bytes

    @property
    def _window_blocks(self) -> int:
        """Blocks that hold a window."""
        return math.ceil(self.window_tokens / self.tokens_per_block)

    @property
    def _window_block_bytes(self) -> int:
        """Bytes of a block, of the layers with a window."""
        return self.tokens_per_block * self.window_bytes_per_token

    @property
    def own_state_bytes(self) -> int:
        """SSM states and convolution windows, once."""
        return self.ssm_state_bytes + self.conv_state_bytes

    def max_tokens(self, available_bytes: int) -> int:
        """Return the longest sequence that fits; 0 when not even one block does."""
        if self.page_bytes:
            num_pages = available_bytes // self.page_bytes - self.num_state_pages
            num_blocks = num_pages // self.pages_per_block
        else:
            left = available_bytes - self.own_state_bytes - self.spare_bytes
            block_bytes = self.tokens_per_block * self.kv_cache_bytes_per_token
            num_blocks = left // block_bytes
            if self.window_tokens and num_blocks >= self._window_blocks:
                left -= self._window_blocks * self._window_block_bytes
                growing = block_bytes - self._window_block_bytes
                num_blocks = left // growing if growing else LONGEST // self.tokens_per_block
        return max(num_blocks, 0) * self.tokens_per_block


def request_memory(
    model: ModelConfig,
    engine: EngineProfile,
    kv: NumberFormat,
    ssm: NumberFormat,
    tp: int = 1,
    windows: Windows | None = None,
    drafts: Drafts | None = None,
) -> RequestMemory:
    """Return the cost of a sequence; heads are split over `tp` GPUs, at least one each.

    The convolution window is stored in 16 bits (32 beside a float32 cache).
    """
    kv_heads = max(model.num_key_value_heads // tp, 1)
    layer_kv_bytes = 2 * kv_heads * model.head_dim * kv.num_bytes
    kv_bytes = layer_kv_bytes * model.num_attention_layers
    conv_type = NumberFormat.FP32 if kv is NumberFormat.FP32 else NumberFormat.BF16
    conv_bytes = math.ceil(model.conv_state_elements * conv_type.num_bytes / tp)
    ssm_bytes = math.ceil(model.ssm_state_elements * ssm.num_bytes / tp)
    spare_bytes = _spare_bytes(model.num_mamba_layers, engine, ssm_bytes + conv_bytes)
    num_states = 1  # that a sequence holds
    if drafts and drafts.states is DraftStates.REPLAYED:
        noted = drafts.num_checked * noted_elements(model) * conv_type.num_bytes
        spare_bytes += math.ceil(noted / tp)
    elif drafts:
        num_states = drafts.num_checked
        spare_bytes += drafts.guesses * (ssm_bytes + conv_bytes)
    is_hybrid = model.num_mamba_layers and model.num_attention_layers
    if engine.paging is not Paging.UNIFIED_PAGES or not is_hybrid:
        return RequestMemory(
            kv_bytes,
            ssm_bytes,
            conv_bytes,
            engine.paging,
            engine.tokens_per_block,
            spare_bytes,
            window_tokens=windows.tokens if windows else 0,
            window_bytes_per_token=layer_kv_bytes * windows.num_layers if windows else 0,
        )
    layer_state_bytes = math.ceil((ssm_bytes + conv_bytes) / model.num_mamba_layers)
    num_tokens = PAGE_TOKEN_MULTIPLE * math.ceil(
        layer_state_bytes / (layer_kv_bytes * PAGE_TOKEN_MULTIPLE)
    )
    # Layers are grouped by kind, each group as large as the smaller kind; a page spans its group.
    group_size = min(model.num_attention_layers, model.num_mamba_layers)
    return RequestMemory(
        kv_bytes,
        ssm_bytes,
        conv_bytes,
        engine.paging,
        num_tokens,
        page_bytes=group_size * num_tokens * layer_kv_bytes,
        pages_per_block=math.ceil(model.num_attention_layers / group_size),
        num_state_pages=num_states * math.ceil(model.num_mamba_layers / group_size),
    )


def _spare_bytes(num_layers: int, engine: EngineProfile, state_bytes: int) -> int:
    """Return what the engine's layout keeps of a sequence's states beside themselves."""
    more = engine.states.buffers(num_layers) - num_layers
    return math.ceil(state_bytes * more / num_layers) if num_layers else 0
