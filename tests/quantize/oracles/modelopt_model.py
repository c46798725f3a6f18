"""Run in an environment with nvidia-modelopt: calibrate and export a whole checkpoint.

usage: python modelopt_model.py CONFIG_NAME CHECKPOINT TARGET IDS.npy
CONFIG_NAME may end in +FP8_KV_CFG.
"""

import sys

import modelopt.torch.quantization as mtq
import numpy as np
import torch
from modelopt.torch.export import export_hf_checkpoint
from modelopt.torch.quantization.utils import update_quant_cfg_with_kv_cache_quant
from transformers import AutoModelForCausalLM


def main() -> None:
    name, source, target, ids = sys.argv[1:]
    weights, _, kv_cache = name.partition("+")
    config = getattr(mtq, weights)
    if kv_cache:
        config = update_quant_cfg_with_kv_cache_quant(config, getattr(mtq, kv_cache)["quant_cfg"])
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).eval()
    tokens = torch.from_numpy(np.load(ids))
    mtq.quantize(model, config, forward_loop=lambda model: model(tokens, use_cache=False))
    export_hf_checkpoint(model, export_dir=target)


if __name__ == "__main__":
    main()
