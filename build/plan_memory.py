"""The device memory of a TensorRT engine: weights, caches, states, and the plan's scratch."""

from dataclasses import dataclass, replace

from nemotrt.engines.engine import Limits
from nemotrt.engines.model_config import ModelConfig
from nemotrt.engines.tensorrt.compiler import prefill_batch
from nemotrt.engines.tensorrt.device_state import SIDES
from nemotrt.profiles.planning.capacity import Fit
from nemotrt.profiles.planning.workspace import workspace_bytes

BF16_BYTES = 2
# What TensorRT's fused attention of prompt chunks reads: keys and values copied for every query
# head. Source: layer reports of tensorrt-rtx 1.7.1.116, kernels before _gemm_mha_v2.
COPIES_OF_CACHE = 2


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes that the runtime allocates when it opens a plan; `scratch_bytes` is an estimate."""

    weights_bytes: int
    kv_cache_bytes: int
    state_bytes: int  # convolution windows and SSM states, both sides
    scratch_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.kv_cache_bytes + self.state_bytes + self.scratch_bytes


def device_memory(fit: Fit, limits: Limits) -> DeviceMemory:
    """Return what an engine of `limits` allocates on the GPU of `fit`."""
    batch, request = limits.max_batch_size, fit.request
    return DeviceMemory(
        weights_bytes=fit.budget.weights_bytes,
        kv_cache_bytes=batch * limits.max_seq_len * request.kv_cache_bytes_per_token,
        state_bytes=SIDES * batch * (request.ssm_state_bytes + request.conv_state_bytes),
        scratch_bytes=scratch_bytes(fit, limits),
    )


def scratch_bytes(fit: Fit, limits: Limits) -> int:
    """Return about what the compiler plans for the activations of one prefill call.

    Tests hold it against the compiler's own figure: 0.9 to 1.3 times as much.
    """
    tokens = prefill_batch(limits) * limits.chunk_tokens
    model = _with_chunk(fit.model, limits.chunk_tokens)
    kept = workspace_bytes(model, fit.activation, tokens, limits.max_batch_size)
    width = COPIES_OF_CACHE * model.q_size + limits.chunk_tokens  # copies, and the mask
    copies = prefill_batch(limits) * limits.max_seq_len * width * BF16_BYTES
    return kept + (copies if model.num_attention_layers else 0)


def _with_chunk(model: ModelConfig, chunk_tokens: int) -> ModelConfig:
    """Return the model as our graph runs it: a prompt chunk is one chunk of the scan."""
    if model.mamba is None:
        return model
    return replace(model, mamba=replace(model.mamba, chunk_size=chunk_tokens))
