"""Run with any transformers and compressed-tensors: the KV cache scales that they read.

usage: python transformers_cache.py FOLDER...   # prints {folder: {name: scale}} as JSON
"""

import json
import sys

from transformers import AutoModelForCausalLM

found = {}
for folder in sys.argv[1:]:
    state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    found[folder] = {
        name: float(value.reshape(-1)[0])
        for name, value in state.items()
        if name.endswith(("k_scale", "v_scale"))
    }
print(json.dumps(found))
