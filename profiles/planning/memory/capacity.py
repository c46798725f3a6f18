"""How many sequences fit, how long one can be, and where the memory goes."""

from dataclasses import dataclass, replace

from nemotrt.engines.backends.protocol.own_runtime import StateLayout, prefill_batch
from nemotrt.engines.backends.tensorrt.draws.tables import device_bytes
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.errors import NoFeasiblePlanError
from nemotrt.profiles.hardware.gpu_profile import GpuProfile
from nemotrt.profiles.planning.memory.request_memory import RequestMemory
from nemotrt.profiles.planning.memory.workspace import PromptCall, workspace_bytes
from nemotrt.profiles.planning.time.engine_profile import Scratch

GIB = 2**30
# The largest batch that TensorRT-LLM's tables and builders use; more is never planned.
MAX_BATCH_SIZE = 2048


@dataclass(frozen=True, slots=True)
class Budget:
    """The memory of one GPU that a plan may use, and what is fixed in it."""

    gpu: GpuProfile
    memory_utilization: float
    reserve_bytes: int
    weights_bytes: int  # on this GPU

    @property
    def usable_bytes(self) -> int:
        """Bytes for weights, caches, states and activations."""
        return int(self.gpu.memory_bytes * self.memory_utilization) - self.reserve_bytes


@dataclass(frozen=True, slots=True)
class Memory:
    """Where the memory of one GPU goes, in bytes; `free_bytes` is what remains of the budget."""

    weights_bytes: int
    kv_cache_bytes: int
    state_bytes: int
    workspace_bytes: int
    free_bytes: int
    withheld_bytes: int  # what --memory-utilization and --reserve-gib leave alone


@dataclass(frozen=True, slots=True)
class Fit:
    """A model on a GPU: the questions about memory."""

    model: ModelConfig
    budget: Budget
    request: RequestMemory
    activation: NumberFormat
    max_num_tokens: int
    cache_tokens: int  # of one sequence's cache
    scratch: Scratch = Scratch.FUSED
    states: StateLayout = StateLayout.IN_PLACE
    chooses: bool = False  # tokens, on the GPU, with tables for each sequence

    def workspace_bytes(self, batch_size: int) -> int:
        """Return the bytes of calls with `batch_size` sequences, and of sampling's tables.

        Calls take activations, and what a prompt call writes of states apart.
        """
        tokens, together = self.max_num_tokens, 1
        if self.scratch is Scratch.GRAPH:  # a chunk is no longer than a sequence
            tokens = min(tokens, self.cache_tokens)
            together = prefill_batch(max(batch_size, 1), tokens)
        prompt = PromptCall(tokens, self.cache_tokens, together)
        tables = device_bytes(self.model.vocab_size, batch_size) if self.chooses else 0
        apart = self.states.scratch_rows(max(batch_size, 1), tokens) * self.request.own_state_bytes
        activations = workspace_bytes(self.model, self.activation, prompt, batch_size, self.scratch)
        return tables + apart + activations

    def left_bytes(self, batch_size: int) -> int:
        """Return the bytes for caches and states with `batch_size` sequences; may be negative."""
        fixed = self.budget.weights_bytes + self.workspace_bytes(batch_size)
        return self.budget.usable_bytes - fixed

    def holds(self, batch_size: int, num_tokens: int) -> bool:
        """Whether `batch_size` sequences of `num_tokens` tokens fit, with caches of that length."""
        longer = replace(self, cache_tokens=num_tokens)
        return batch_size * self.request.total_bytes(num_tokens) <= longer.left_bytes(batch_size)

    def max_batch_size(self, num_tokens: int) -> int:
        """Return how many sequences of `num_tokens` tokens fit, at most MAX_BATCH_SIZE."""
        per_sequence = self.request.total_bytes(num_tokens)
        low, high = 0, MAX_BATCH_SIZE
        while low < high:
            middle = (low + high + 1) // 2
            fits = middle * per_sequence <= self.left_bytes(middle)
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    def max_seq_len(self, batch_size: int = 1) -> int:
        """Return the longest sequence of which `batch_size` fit; 0 if none does."""
        left = self.budget.usable_bytes - self.budget.weights_bytes
        low, high = 0, self.request.max_tokens(max(left, 0) // batch_size)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.holds(batch_size, middle) else (low, middle - 1)
        return low

    def memory(self, batch_size: int, num_tokens: int) -> Memory:
        """Return where the memory goes with `batch_size` sequences of `num_tokens` tokens."""
        states = batch_size * self.request.total_bytes(0)
        caches = batch_size * self.request.total_bytes(num_tokens) - states
        workspace = self.workspace_bytes(batch_size)
        used = self.budget.weights_bytes + workspace + caches + states
        return Memory(
            weights_bytes=self.budget.weights_bytes,
            kv_cache_bytes=caches,
            state_bytes=states,
            workspace_bytes=workspace,
            free_bytes=self.budget.usable_bytes - used,
            withheld_bytes=self.budget.gpu.memory_bytes - self.budget.usable_bytes,
        )

    def require(self, batch_size: int, num_tokens: int, what: str) -> None:
        """Raise unless `batch_size` sequences of `num_tokens` tokens fit.

        Raises:
            NoFeasiblePlanError: with the shortfall and what could be changed.
        """
        needed = batch_size * self.request.total_bytes(num_tokens)
        missing = needed - self.left_bytes(batch_size)
        if missing <= 0:
            return
        weights = self.budget.weights_bytes / GIB
        raise NoFeasiblePlanError(
            f"{what} does not fit {self.budget.gpu.name}: {batch_size} x {num_tokens} tokens need "
            f"{needed / GIB:.2f} GiB beside {weights:.2f} GiB of weights and "
            f"{self.workspace_bytes(batch_size) / GIB:.2f} GiB of activations; "
            f"{missing / GIB:.2f} GiB are missing of {self.budget.usable_bytes / GIB:.2f} GiB. "
            "Choose a larger GPU, a smaller precision, shorter sequences, or --tp-size."
        )
