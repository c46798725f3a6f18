"""The arguments of `tensorrt_llm.LLM` that a bundle sets: typed, and checked before they are used.

Sources: TensorRT-LLM's tensorrt_llm/llmapi/llm_args.py and tests/unittest/api_stability/references/
llm.yaml, as of 1.2 and of the 1.3 release candidates: these names and types are the same in both.
Not executed: no GPU.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml

from nemotrt.engines.backends.protocol.options import TpSize
from nemotrt.engines.backends.protocol.planning import FREE_GPU_MEMORY_FRACTION
from nemotrt.engines.backends.tensorrt_llm.options import TensorRTLLMOptions
from nemotrt.engines.runtime.engine import Limits
from nemotrt.errors import ArtefactError
from nemotrt.files.model_file import Strict, yaml_model
from nemotrt.files.text_file import read_text

Positive = Annotated[int, pydantic.Field(ge=1)]


class MambaStateConfig(Strict, strict=True):
    """`mamba_state_config`: after which tokens of a prompt the recurrent state is kept.

    Each time so many have come, and where so many are left of the prompt.
    """

    periodic_snapshot_interval: Positive
    additional_snapshot_offsets_from_end: list[Annotated[int, pydantic.Field(ge=0)]] | None = None


class KvCacheConfig(Strict, strict=True):
    """`kv_cache_config`. Prefixes are reused only where their recurrent state is kept too.

    What may be None is not in every version: see `versions`.
    """

    enable_block_reuse: bool = False
    free_gpu_memory_fraction: float = pydantic.Field(FREE_GPU_MEMORY_FRACTION, gt=0, le=1)
    mamba_ssm_cache_dtype: Literal["auto", "float16", "bfloat16", "float32"] = "float32"
    dtype: Literal["auto", "fp8"] = "auto"
    mamba_state_config: MambaStateConfig | None = None
    avg_seq_len: Positive | None = None

    @pydantic.model_validator(mode="after")
    def _check_reuse(self) -> "KvCacheConfig":
        """Check that a prefix is reused with its recurrent state."""
        if self.enable_block_reuse != (self.mamba_state_config is not None):
            raise ValueError(
                "enable_block_reuse: Input should be true with mamba_state_config, and false "
                "without it"
            )
        return self


class CudaGraphConfig(Strict, strict=True):
    """`cuda_graph_config`: batches are padded to the next size. Sizes and a maximum exclude."""

    enable_padding: bool = True
    batch_sizes: list[Positive] = pydantic.Field(min_length=1)


class LoraConfig(Strict, strict=True):
    """`lora_config`: room for adapters, which requests name. `lora` fills it."""

    max_lora_rank: Positive
    max_loras: Positive
    max_cpu_loras: Positive
    lora_target_modules: list[str] = pydantic.Field(min_length=1)
    trtllm_modules_to_hf_modules: dict[str, str] = pydantic.Field(min_length=1)


class LlmArgs(Strict, strict=True):
    """What `LLM(model, **args)` and `trtllm-serve --extra_llm_api_options FILE` are given."""

    backend: Literal["pytorch"] = "pytorch"
    trust_remote_code: bool = False
    tensor_parallel_size: TpSize = 1
    max_batch_size: Positive
    max_input_len: Positive
    max_seq_len: Positive
    max_num_tokens: Positive
    max_beam_width: Literal[1] = 1
    enable_chunked_prefill: bool = True
    kv_cache_config: KvCacheConfig
    cuda_graph_config: CudaGraphConfig | None
    lora_config: LoraConfig | None = None

    @pydantic.model_validator(mode="after")
    def _check_sizes(self) -> "LlmArgs":
        """Check what TensorRT-LLM only finds once the model is loaded."""
        if self.max_num_tokens < self.max_batch_size:
            raise ValueError("max_num_tokens must be at least max_batch_size")
        graphs = self.cuda_graph_config
        if graphs is not None and max(graphs.batch_sizes) > self.max_batch_size:
            raise ValueError("cuda_graph_config.batch_sizes must not exceed max_batch_size")
        if (graphs is None) != (self.lora_config is not None):
            raise ValueError("cuda_graph_config must be null with lora_config, and set without it")
        return self

    def with_lora(self, lora: LoraConfig) -> "LlmArgs":
        """Return the arguments with room for adapters, and without CUDA graphs.

        Source: NVIDIA/TensorRT-LLM#19151 tried adapters of a Nemotron-H in eager mode alone.
        """
        return self.model_copy(update={"lora_config": lora, "cuda_graph_config": None})

    def told(self) -> dict[str, Any]:
        """Return what is written and what `LLM` gets: the names that it need not hear are out."""
        found = self.model_dump(mode="json", exclude_none=True)
        return found if self.cuda_graph_config else found | {"cuda_graph_config": None}


def llm_args(
    limits: Limits, *, has_fp8_cache: bool, options: TensorRTLLMOptions | None = None
) -> LlmArgs:
    """Return the arguments, beside `model`, for an engine of these limits.

    The SSM state stays float32, as the model card asks.
    """
    told = options or TensorRTLLMOptions()
    cache: dict[str, Any] = {"dtype": "fp8" if has_fp8_cache else "auto"}
    cache["avg_seq_len"] = told.avg_seq_len
    if told.prefix_snapshots:
        interval = {"periodic_snapshot_interval": told.prefix_snapshots}
        cache |= {"enable_block_reuse": True, "mamba_state_config": interval}
    return LlmArgs.model_validate(
        {
            "trust_remote_code": told.is_code_trusted,
            "tensor_parallel_size": told.tp_size,
            "max_batch_size": limits.max_batch_size,
            "max_input_len": limits.max_seq_len,
            "max_seq_len": limits.max_seq_len,
            "max_num_tokens": limits.max_batch_size + limits.chunk_tokens,
            "kv_cache_config": cache,
            "cuda_graph_config": {"batch_sizes": graph_batch_sizes(limits.max_batch_size)},
        }
    )


def with_reuse(args: LlmArgs, interval: int, offset_from_end: int) -> LlmArgs:
    """Return the arguments with prefixes reused, and the points where the state is kept."""
    raw = args.told()
    raw["kv_cache_config"] |= {
        "enable_block_reuse": True,
        "mamba_state_config": {
            "periodic_snapshot_interval": interval,
            "additional_snapshot_offsets_from_end": [offset_from_end],
        },
    }
    return LlmArgs.model_validate(raw)


def graph_batch_sizes(max_batch_size: int) -> list[int]:
    """Return the batch sizes of CUDA graphs: dense where batches are small, and the largest.

    Up to 8 by powers of two, up to 128 by eights, by powers of two from there: a padded batch is
    at most twice the real one, and at most 7 more up to 128.
    """
    steps = [1, 2, 4, *range(8, 129, 8)]
    while steps[-1] < max_batch_size:
        steps.append(2 * steps[-1])
    return [*(size for size in steps if size < max_batch_size), max_batch_size]


def to_yaml(args: LlmArgs) -> str:
    """Return the arguments as YAML, every one that each version has written out."""
    return yaml.safe_dump(args.told(), sort_keys=False)


def read_llm_args(path: Path) -> dict[str, Any]:
    """Return the checked arguments in a bundle's file, ready for `LLM(model, **args)`."""
    return checked_args(path).told()


def checked_args(path: Path) -> LlmArgs:
    """Return the arguments in a bundle's file.

    Raises:
        ArtefactError: the file is missing, not YAML, or has a name or value that is not one of
            TensorRT-LLM's.
    """
    text = read_text(path, ArtefactError)
    return yaml_model(LlmArgs, text, str(path), ArtefactError)
