"""Which serving engines load a quantized checkpoint, by format and algorithm, and why not.

Source: the loaders of TensorRT-LLM's PyTorch backend (2026-08 and -09 snapshots), vLLM 0.33.0 and
transformers 5.23; none was run here on a GPU. docs/quantization.md has the details.
"""

from nemotrt.engines.quant_config import QuantAlgo
from nemotrt.quantize.formats import Format

TRT_LLM, VLLM, TRANSFORMERS = "TensorRT-LLM (PyTorch)", "vLLM", "transformers"
NO_MODELOPT = "no: has no reader for ModelOpt's layout and would load raw codes"

LOADERS: dict[tuple[Format, QuantAlgo], dict[str, str]] = {
    (Format.MODELOPT, QuantAlgo.FP8): {
        TRT_LLM: "yes",
        VLLM: "yes",
        TRANSFORMERS: NO_MODELOPT,
    },
    (Format.MODELOPT, QuantAlgo.FP8_PER_CHANNEL): {
        TRT_LLM: "yes",
        VLLM: "yes",
        TRANSFORMERS: NO_MODELOPT,
    },
    (Format.MODELOPT, QuantAlgo.INT8_WEIGHT_ONLY): {
        TRT_LLM: "yes",
        VLLM: "no: rejects W8A16 in ModelOpt's layout; export --format compressed-tensors",
        TRANSFORMERS: NO_MODELOPT,
    },
    (Format.MODELOPT, QuantAlgo.INT8_SMOOTHQUANT): {
        TRT_LLM: "no: has no INT8 activations for this model",
        VLLM: "no: rejects it in ModelOpt's layout; export --format compressed-tensors",
        TRANSFORMERS: NO_MODELOPT,
    },
    (Format.COMPRESSED_TENSORS, QuantAlgo.FP8): {
        TRT_LLM: "no: refuses per-tensor scales in compressed-tensors; use --format modelopt",
        VLLM: "yes",
        TRANSFORMERS: "yes, with compressed-tensors installed",
    },
    (Format.COMPRESSED_TENSORS, QuantAlgo.FP8_PER_CHANNEL): {
        TRT_LLM: "yes",
        VLLM: "yes",
        TRANSFORMERS: "yes, with compressed-tensors installed",
    },
    (Format.COMPRESSED_TENSORS, QuantAlgo.INT8_WEIGHT_ONLY): {
        TRT_LLM: "no: use --format modelopt",
        VLLM: "yes",
        TRANSFORMERS: "yes, with compressed-tensors installed",
    },
    (Format.COMPRESSED_TENSORS, QuantAlgo.INT8_SMOOTHQUANT): {
        TRT_LLM: "no, and take care: it reads this layout as FP8 and degrades silently",
        VLLM: "yes",
        TRANSFORMERS: "yes, with compressed-tensors installed",
    },
}
