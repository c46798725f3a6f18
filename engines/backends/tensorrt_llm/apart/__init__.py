"""TensorRT-LLM's side, which runs in the interpreter that has `tensorrt_llm`.

It imports the standard library, `tensorrt_llm` (with its torch), `nemotrt.wire` and this folder,
all of which it finds by path: nemotrt is not installed there, and what that world has of numpy,
onnx or llguidance never meets ours. It runs on Python 3.10 too. Read `start`, `service`,
`token_streams`.
"""
