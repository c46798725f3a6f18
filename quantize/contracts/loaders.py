"""Which engines load a quantized checkpoint, by format and algorithm, and why not.

Source: the loaders of TensorRT-LLM's PyTorch backend (2026-08 and -09 snapshots), read; vLLM 0.32
and 0.33, whose readers the slow tests run; transformers 5.19 and 5.24, run. None ran here on a GPU.
docs/reference/formats.md has the details.
"""

from nemotrt.engines.checkpoint.quantized.scheme import Layout, QuantConfig
from nemotrt.engines.model.model_config import LayerKind, ModelConfig
from nemotrt.engines.model.numerics import BUILT, GROUP_SIZES, Precision
from nemotrt.quantize.conversion.formats import CheckpointFormat

BUILD = "nemotrt build"
OTHERS_BUILD = "yes, on the CPU and as 16 bit engines: its codes are read as floats"
TRT_LLM, VLLM, TRANSFORMERS = "TensorRT-LLM (PyTorch)", "vLLM", "transformers"
UNREAD_NVFP4 = "not known: whether it takes W4A16_NVFP4 was neither read nor run"
VLLM_NVFP4 = "yes, on GPUs (Marlin, not run here): its CPU build has no kernel for them"
WITH_TRANSFORMERS = {
    CheckpointFormat.MODELOPT: "no: has no reader for ModelOpt's layout and would load raw codes",
    CheckpointFormat.COMPRESSED_TENSORS: "yes, with compressed-tensors installed",
}

LOADERS: dict[tuple[CheckpointFormat, Precision], dict[str, str]] = {
    (CheckpointFormat.MODELOPT, Precision.FP8): {TRT_LLM: "yes", VLLM: "yes"},
    (CheckpointFormat.MODELOPT, Precision.FP8_DYNAMIC): {TRT_LLM: "yes", VLLM: "yes"},
    (CheckpointFormat.MODELOPT, Precision.INT8_WO): {
        TRT_LLM: "yes",
        VLLM: "no: rejects W8A16 in ModelOpt's layout; export --format compressed-tensors",
    },
    (CheckpointFormat.MODELOPT, Precision.INT4_WO): {
        TRT_LLM: "yes",
        VLLM: "no: rejects W4A16_AWQ in ModelOpt's layout; export --format compressed-tensors",
    },
    (CheckpointFormat.MODELOPT, Precision.NVFP4_WO): {
        TRT_LLM: UNREAD_NVFP4,
        VLLM: VLLM_NVFP4,
    },
    (CheckpointFormat.COMPRESSED_TENSORS, Precision.NVFP4_WO): {
        TRT_LLM: "no: takes 4-bit weights in ModelOpt's layout only",
        VLLM: VLLM_NVFP4,
    },
    (CheckpointFormat.MODELOPT, Precision.INT8_SQ): {
        TRT_LLM: "no: has no INT8 activations for this model",
        VLLM: "no: rejects it in ModelOpt's layout; export --format compressed-tensors",
    },
    (CheckpointFormat.MODELOPT, Precision.INT8_DYNAMIC): {
        TRT_LLM: "no: has no INT8 activations for this model",
        VLLM: "no: rejects it in ModelOpt's layout; export --format compressed-tensors",
    },
    (CheckpointFormat.COMPRESSED_TENSORS, Precision.FP8): {
        TRT_LLM: "no: refuses per-tensor scales in compressed-tensors; use --format modelopt",
        VLLM: "yes",
    },
    (CheckpointFormat.COMPRESSED_TENSORS, Precision.FP8_DYNAMIC): {TRT_LLM: "yes", VLLM: "yes"},
    (CheckpointFormat.COMPRESSED_TENSORS, Precision.INT8_WO): {
        TRT_LLM: "no: use --format modelopt",
        VLLM: "yes",
    },
    (CheckpointFormat.COMPRESSED_TENSORS, Precision.INT4_WO): {
        TRT_LLM: "no: takes 4-bit weights in ModelOpt's layout only",
        VLLM: "yes",
    },
    (CheckpointFormat.COMPRESSED_TENSORS, Precision.INT8_DYNAMIC): {
        TRT_LLM: "no: takes the int8 codes for FP8; use int8-wo in --format modelopt",
        VLLM: "yes",
    },
    (CheckpointFormat.COMPRESSED_TENSORS, Precision.INT8_SQ): {
        TRT_LLM: "no: refuses static activation scales in compressed-tensors",
        VLLM: "yes",
    },
}

# A quantized KV cache changes "yes". Source: TensorRT-LLM's tests of its PyTorch backend refuse
# hybrid models and paged context; vLLM's validator of compressed-tensors takes FP8 alone, and its
# reader of ModelOpt's layout passes over the rest; transformers quantizes the cache through
# compressed-tensors, which looks for an attention argument that transformers 5.24 has renamed.
BUILD_CACHE = {
    "none": "yes",
    "FP8": "yes; the KV cache is FP8 in backends tensorrt-llm, tensorrt-llm-1.2 and edge-llm only",
    "INT8": "yes; no backend takes the int8 KV cache",
}
VLLM_INT8_CACHE = {
    CheckpointFormat.MODELOPT: "yes, with the KV cache in 16 bit: it reads FP8 scales only",
    CheckpointFormat.COMPRESSED_TENSORS: "no: refuses an int8 KV cache; use --kv-cache fp8 or none",
}
TRANSFORMERS_CACHE = (
    "yes, with compressed-tensors installed; the KV cache by its scales in 5.19, in 16 bit in 5.24"
)
# Source: its fpA_intB_gemm_template.h, "Only group size 64 and 128 supported".
TRT_LLM_GROUPS = GROUP_SIZES[1:]
# NVIDIA publishes models with experts in FP8, one scale per tensor, for both.
READ_EXPERTS = (CheckpointFormat.MODELOPT, Precision.FP8)
UNREAD_EXPERTS = "not known: its reader of experts quantized like this was neither read nor run"
# Source: TensorRT-LLM, _torch/model_config.py: quantized_layers by name, each as a QuantConfig.
MIXED_IN_VLLM = "not known: a config group for some names was neither read nor run"
MIXED_IN_TRT_LLM = "yes, by its source: quantized_layers by name; the mix was not run"
HYBRID_INT8_CACHE = "no: refuses an int8 KV cache for hybrid models; use --kv-cache fp8 or none"
DENSE_INT8_CACHE = "yes, with block reuse and chunked prefill off: the KV cache is int8"


def loader_verdicts(
    layout: CheckpointFormat,
    precision: Precision,
    kv_algo: str | None,
    model: ModelConfig,
    group_size: int | None = None,
    *,
    is_mixed: bool = False,
) -> dict[str, str]:
    """Return each engine's name and whether it loads this checkpoint: `yes...` or `no...`."""
    verdicts = {BUILD: BUILD_CACHE.get(kv_algo or "none", "yes")}
    if precision not in BUILT:
        verdicts[BUILD] = OTHERS_BUILD
    verdicts |= LOADERS[layout, precision] | {TRANSFORMERS: WITH_TRANSFORMERS[layout]}
    is_int4 = precision is Precision.INT4_WO
    if is_int4 and group_size not in (None, *TRT_LLM_GROUPS) and verdicts[TRT_LLM] == "yes":
        sizes = " or ".join(map(str, TRT_LLM_GROUPS))
        verdicts[TRT_LLM] = f"no: its kernels take groups of {sizes}; use --group-size"
    if is_mixed and verdicts[TRT_LLM] == "yes":
        verdicts[TRT_LLM] = MIXED_IN_TRT_LLM
    if is_mixed and verdicts[VLLM] == "yes":
        verdicts[VLLM] = MIXED_IN_VLLM
    if model.moe is not None and (layout, precision) != READ_EXPERTS:
        unread = (name for name in verdicts if name != BUILD and verdicts[name].startswith("yes"))
        verdicts |= dict.fromkeys(unread, UNREAD_EXPERTS)
    if kv_algo is not None and verdicts[TRANSFORMERS].startswith("yes"):
        verdicts[TRANSFORMERS] = TRANSFORMERS_CACHE
    if kv_algo != "INT8":
        return verdicts
    if verdicts[TRT_LLM].startswith("yes"):
        is_hybrid = LayerKind.MAMBA in model.layers
        verdicts[TRT_LLM] = HYBRID_INT8_CACHE if is_hybrid else DENSE_INT8_CACHE
    if verdicts[VLLM].startswith("yes"):
        verdicts[VLLM] = VLLM_INT8_CACHE[layout]
    return verdicts


NOT_RUN = "yes, by its source; not run here"
NO_READER = "no: has no reader for these codes"
LLAMA_CPP = "llama.cpp"
# Source: vLLM 0.32 (model_executor/layers/quantization), TensorRT-LLM's model_config.py (2026-09),
# transformers 5.24 (quantizers/auto.py).
VLLM_MODELOPT = ("FP8", "FP8_PER_CHANNEL_PER_TOKEN", "NVFP4", "W4A16_NVFP4")  # also mixed
TRT_LLM_TAKES = {
    (Layout.MODELOPT, Precision.INT4_WO),
    (Layout.MODELOPT, Precision.NVFP4_WO),
    (Layout.MODELOPT, Precision.FP8),
    (Layout.FP8, Precision.FP8_DYNAMIC),
}


def others_verdicts(quant: QuantConfig) -> dict[str, str]:
    """Return each engine's name and whether it loads codes that nothing here writes."""
    assert quant.layout is not None  # it has schemes
    schemes = [scheme for _, scheme in quant.schemes]
    is_taken = all((quant.layout, scheme.precision) in TRT_LLM_TAKES for scheme in schemes)
    found = {
        BUILD: OTHERS_BUILD,
        TRT_LLM: NOT_RUN if is_taken else NO_READER,
        VLLM: NOT_RUN,
        TRANSFORMERS: NOT_RUN,
    }
    if quant.layout is Layout.GGUF:
        return found | dict.fromkeys((VLLM, TRANSFORMERS), NO_READER) | {LLAMA_CPP: "yes"}
    if quant.layout is Layout.COMPRESSED_TENSORS:
        plain = WITH_TRANSFORMERS[CheckpointFormat.COMPRESSED_TENSORS]
        found[TRANSFORMERS] = plain if quant.kv_cache_algo is None else TRANSFORMERS_CACHE
    if quant.layout is Layout.MODELOPT:
        found[TRANSFORMERS] = WITH_TRANSFORMERS[CheckpointFormat.MODELOPT]
        algos = [scheme.title.removeprefix("ModelOpt ") for scheme in schemes]
        if Precision.NVFP4_WO.algo in algos:
            found[TRT_LLM] = UNREAD_NVFP4
        if refused := [algo for algo in algos if algo not in VLLM_MODELOPT]:
            found[VLLM] = f"no: rejects {refused[0]} in ModelOpt's layout"
    if quant.kv_cache_algo is not None:
        found[BUILD] += f"; the KV cache, {quant.kv_cache_algo} by its config, is of 16 or 32 bits"
    is_ours = quant.layout in (Layout.MODELOPT, Layout.COMPRESSED_TENSORS)
    if quant.kv_cache_algo == "INT8" and is_ours and found[VLLM].startswith("yes"):
        found[VLLM] = VLLM_INT8_CACHE[CheckpointFormat(quant.layout)]
    return found
