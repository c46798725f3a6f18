"""Source: 1.2 tensorrt_llm/_utils.py."""

TYPES = ("float16", "bfloat16", "float32", "int64", "int32", "int8", "fp8")


def str_dtype_to_trt(dtype: str) -> str:
    assert dtype in TYPES, f"Unsupported dtype: {dtype}"
    return dtype
