"""Source: 1.2 tensorrt_llm/_common.py, network.py. The network that is being made, by thread."""

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np

_local = threading.local()
PLUGINS = {
    "gpt_attention_plugin": "bfloat16",
    "mamba_conv1d_plugin": "bfloat16",
    "gemm_plugin": "bfloat16",
    "remove_input_padding": True,
    "paged_state": True,
    "paged_kv_cache": True,
    "tokens_per_block": 32,
    "multiple_profiles": False,
    "streamingllm": False,
}


class Group:
    """Ranks that exchange arrays; each call is met by every rank."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.workspace_set = size == 1
        self._slots: list[Any] = [None] * size
        self._barrier = threading.Barrier(size)

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self._slots[rank] = value
        self._barrier.wait(60)
        values = list(self._slots)
        self._barrier.wait(60)
        return values

    def break_up(self) -> None:
        self._barrier.abort()


class Network:
    """A network: plugin settings, what is fed, what became an output, and the device's memory."""

    def __init__(self, feeds: dict[str, np.ndarray], rank: int, group: Group, **plugins: Any):
        self.plugin_config = SimpleNamespace(**PLUGINS | plugins)
        self.feeds = feeds
        self.rank, self.group = rank, group
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.memory: dict[int, np.ndarray] = {}  # by pointer
        self.caches: dict[tuple[int, int], np.ndarray] = {}  # keys and values by layer and slot
        self.plugins_used: list[str] = []


def default_net() -> Network:
    return _local.network


def set_default_net(network: Network) -> None:
    _local.network = network
