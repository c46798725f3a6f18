"""What an engine adds to the hardware: its overheads, its paging, its prefill chunk."""

from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.model.model_config import LayerKind, ModelConfig
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.files.model_file import Strict, named_model, yaml_names
from nemotrt.profiles.hardware.gpu_profile import Band
from nemotrt.profiles.planning.sources.number_format import default_kv_type
from nemotrt.profiles.planning.time.formats import Formats

ENGINE_FOLDER = resources.files("nemotrt.profiles.planning.time") / "engines"


class Paging(StrEnum):
    """How an engine hands out memory to a sequence."""

    SLOTS = "slots"  # one contiguous cache of max_seq_len a sequence
    BLOCKS = "blocks"  # KV in blocks of tokens; SSM state in a slot
    UNIFIED_PAGES = "unified-pages"  # KV and SSM state in pages of one size


class Admission(StrEnum):
    """When a request may start."""

    RESERVE = "reserve"  # its full length is kept free: nothing is ever evicted
    MEAN = "mean"  # the mean occupancy fits: in-flight batching with eviction as a last resort


class Scratch(StrEnum):
    """What a prompt's kernels keep beside their inputs and results."""

    FUSED = "fused"  # the SSD scan's tensors a chunk of the model's size, attention tile by tile
    GRAPH = "graph"  # our ONNX graph in TensorRT: the call is one chunk, attention copies its cache


class Boundary(StrEnum):
    """After which tokens of a prompt an engine can go on from a state that it kept."""

    ANY_TOKEN = "any token"  # kept in host memory, whole
    BLOCKS = "blocks"  # kept on the GPU, where a block of its paging ends
    SNAPSHOTS = "snapshots"  # kept on the GPU, at points that its configuration names
    UNKNOWN = "unknown"  # nobody read it: nothing is planned of it


class Reuse(Strict):
    """What of a prompt an engine need not compute again."""

    boundary: Boundary
    source: str = Field(min_length=1)


class WindowUse(StrEnum):
    """What an engine does with tokens outside of a layer's sliding window."""

    FREED = "freed"  # neither kept nor read
    KEPT = "kept"  # kept, and not read
    UNKNOWN = "unknown"  # counted as kept and read


class SlidingWindows(Strict):
    """What an engine does with layers that have a sliding window."""

    use: WindowUse
    source: str = Field(min_length=1)


class DraftStates(StrEnum):
    """How guesses that do not hold are undone in the states of Mamba layers."""

    EACH = "each"  # a state is held and written for every token that is checked
    REPLAYED = "replayed"  # inputs are noted; a second pass takes the state over those that held
    UNKNOWN = "unknown"  # nobody read it: only models without such layers are planned


class Speculation(Strict):
    """An engine that checks guessed tokens beside a step's own."""

    states: DraftStates
    source: str = Field(min_length=1)


class RunsAdapters(Strict):
    """An engine that runs LoRA adapters beside its weights, and what it holds them in."""

    number: NumberFormat
    source: str = Field(min_length=1)


# A time that no roofline explains; `low` and `high` are of the time, not of the rate.
Overhead = Band[NonNegativeFloat]


class Launches(Strict):
    """Kernels of a layer of each kind, of each expert, and of a step beside its layers."""

    mamba: PositiveInt
    mlp: PositiveInt
    attention: PositiveInt
    moe: PositiveInt
    expert: PositiveInt
    step: PositiveInt
    source: str = Field(min_length=1)

    def of(self, model: ModelConfig) -> int:
        """Return the kernels of one call."""
        layers = {
            LayerKind.MAMBA: self.mamba,
            LayerKind.MLP: self.mlp,
            LayerKind.ATTENTION: self.attention,
            LayerKind.MOE: self.moe + (self.expert * model.moe.num_experts if model.moe else 0),
        }
        return self.step + sum(layers[kind] for kind in model.layers)


class Choosing(Strict):
    """Tokens that kernels choose on the GPU, while the host is a step behind."""

    passes: PositiveInt  # over a sequence's float32 logits, read or written
    passes_source: str = Field(min_length=1)
    # The host's work for each sequence of a step, beside the GPU's: a step is never shorter.
    host_us: Overhead


UNKNOWN_WINDOWS = SlidingWindows(use=WindowUse.UNKNOWN, source="not read")
NOT_MEASURED = "not measured: from one-shot kernels over NVLink to NCCL over PCIe"
NO_OVERHEAD = Overhead(low=0, best=0, high=0, source="none")


class TensorParallel(Strict):
    """What an engine's calls cost more on several GPUs, beside the bytes that they send."""

    step_ms: Overhead = NO_OVERHEAD  # of a call, for each doubling of the GPUs
    prompt_ms: Overhead = NO_OVERHEAD  # of a call with prompts, for each doubling
    sequence_us: Overhead = NO_OVERHEAD  # of a call for each sequence, for each GPU after the first
    all_reduce_us: Overhead = Overhead(low=8, best=15, high=40, source=NOT_MEASURED)  # on 2 GPUs
    all_reduce_more_us: Overhead = NO_OVERHEAD  # for each doubling beyond 2


class EngineProfile(Strict):
    """One serving engine."""

    name: str
    title: str
    notes: str = ""  # what a plan of it says beside its figures
    paging: Paging
    paging_source: str
    tokens_per_block: PositiveInt = 1
    admission: Admission  # unless the user says otherwise
    admission_source: str = Field(min_length=1)
    reuse: Reuse
    device: Literal["gpu", "cpu"] = "gpu"
    scratch: Scratch = Scratch.FUSED
    windows: SlidingWindows = UNKNOWN_WINDOWS
    speculation: Speculation | None = None  # None: it checks no guesses, as far as is known
    adapters: RunsAdapters | None = None  # None: it runs none beside its weights, likewise
    # Whether attention reads a slot's whole cache, and masks what is not held.
    reads_whole_cache: bool = False
    reads_whole_cache_source: str = ""
    # Where a step writes SSM and convolution states; another engine's are in place.
    states: StateLayout = StateLayout.IN_PLACE
    kv_dtype: NumberFormat | None = None  # where the engine has but one
    # What 16-bit linears, the head and activations are in memory, where that is not 16 bits.
    widened: NumberFormat | None = None
    # Whether it quantizes the head of a 16-bit checkpoint with the linears.
    quantizes_head: bool = False
    quantizes_head_source: str = ""
    launches: Launches | None = None  # where kernels are not one an operator of the planner
    # Whether an FP8 checkpoint gets an FP8 KV cache without being asked to.
    is_fp8_kv_default: bool
    fp8_kv_source: str
    max_num_tokens: PositiveInt  # new tokens in one call, unless the user says otherwise
    step_overhead_ms: Overhead  # launches and host work that do not overlap the GPU
    sequence_overhead_us: Overhead  # sampling and bookkeeping, for each sequence of a step
    # Of a request, outside of all calls: HTTP, tokenizing, its way to the scheduler and back.
    request_overhead_ms: Overhead = NO_OVERHEAD
    tensor_parallel: TensorParallel = TensorParallel()
    # What its 8-bit kernels reach over the GPU's gemm_compute_8bit.
    gemm_8bit_factor: PositiveFloat = 1.0
    gemm_8bit_source: str = ""
    # What its attention reaches of the GPU's attention_bandwidth where the KV cache has 8 bits.
    attention_8bit_factor: PositiveFloat = 1.0
    # Whether prompts share their calls with tokens of others; else these wait for all prompts.
    mixes_prompts: bool = True
    # Time of each kernel that nothing hides; a GPU's launches are inside step_overhead_ms.
    launch_overhead_us: Overhead = NO_OVERHEAD
    choosing: Choosing | None = None  # None: inside sequence_overhead_us
    # K (or V) elements that one SM multiplies in a second, for each query head: set only where
    # the decode attention runs on CUDA cores and reads a shared KV head once a query head.
    attention_elements_per_s_per_sm: PositiveFloat | None = None
    attention_elements_source: str = ""

    def kv_type(self, precision: Precision) -> NumberFormat:
        """Return the KV cache's format that `precision` gets without being asked for another."""
        return self.kv_dtype or default_kv_type(precision, self.is_fp8_kv_default)

    def formats(self, precision: Precision, kv: NumberFormat, ssm: NumberFormat) -> Formats:
        """Return the number formats of a plan of a 16 bit checkpoint with this engine."""
        return Formats(precision, kv, ssm, self.widened, self.quantizes_head)


def known_engines() -> list[str]:
    """Return the names of the engines that ship with the package."""
    return yaml_names(ENGINE_FOLDER)


@cache
def load_engine(name: str) -> EngineProfile:
    """Return the profile of an engine name.

    Raises:
        ConfigError: no such engine.
    """
    return named_model(EngineProfile, ENGINE_FOLDER, name, "engine")
