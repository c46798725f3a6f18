"""The device memory of a TensorRT engine: weights, caches, states, and the plan's scratch."""

from dataclasses import dataclass

from nemotrt.engines.backends.tensorrt.compile.compiler import prefill_batch
from nemotrt.engines.backends.tensorrt.draws.tables import device_bytes
from nemotrt.engines.backends.tensorrt.run.device_state import SIDES
from nemotrt.engines.runtime.engine import Limits
from nemotrt.profiles.planning.memory.capacity import Fit
from nemotrt.profiles.planning.memory.workspace import PromptCall, workspace_bytes
from nemotrt.profiles.planning.time.engine_profile import Scratch


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes that the runtime allocates when it opens a plan; `scratch_bytes` is an estimate."""

    weights_bytes: int
    kv_cache_bytes: int
    state_bytes: int  # convolution windows and SSM states, all sides
    scratch_bytes: int  # of the plan's calls, and sampling's tables

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.kv_cache_bytes + self.state_bytes + self.scratch_bytes


def device_memory(fit: Fit, limits: Limits, num_sides: int = SIDES) -> DeviceMemory:
    """Return what an engine of `limits` allocates on the GPU of `fit`.

    States that are updated in place have one side.
    """
    batch, request = limits.max_batch_size, fit.request
    return DeviceMemory(
        weights_bytes=fit.budget.weights_bytes,
        kv_cache_bytes=batch * limits.max_seq_len * request.kv_cache_bytes_per_token,
        state_bytes=num_sides * batch * (request.ssm_state_bytes + request.conv_state_bytes),
        scratch_bytes=scratch_bytes(fit, limits) + device_bytes(fit.model.vocab_size, batch),
    )


def scratch_bytes(fit: Fit, limits: Limits) -> int:
    """Return about what the compiler plans for the activations of one prefill call.

    Tests hold it against the compiler's own figure: 0.9 to 1.3 times as much.
    """
    prompt = PromptCall(limits.chunk_tokens, limits.max_seq_len, prefill_batch(limits))
    batch = limits.max_batch_size
    return workspace_bytes(fit.model, fit.activation, prompt, batch, Scratch.GRAPH)
