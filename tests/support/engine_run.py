"""Runs our model class on the stand-in of TensorRT-LLM 1.2: one thread a rank, state in slots."""

import importlib.util
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

STAND_IN = Path(__file__).parent / "engine_api"
MAX_BATCH_SIZE, MAX_SEQ_LEN = 3, 64


def load_model_class(folder: Path) -> Any:
    """Load the file as trtllm-build does; the stand-in must be importable."""
    spec = importlib.util.spec_from_file_location("custom", folder / "nemotron_h_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NemotronHForCausalLM


class Ranks:
    """The ranks of one checkpoint; `step` gives each slot its tokens."""

    def __init__(self, folder: Path, tp_size: int, *, is_hopper: bool = False, **plugins: Any):
        kind = load_model_class(folder)
        self.common = sys.modules["tensorrt_llm._common"]
        kind.IS_HOPPER = is_hopper
        self.models = [kind.from_checkpoint(folder, rank) for rank in range(tp_size)]
        self.plugins = plugins
        self.held = dict.fromkeys(range(MAX_BATCH_SIZE), 0)
        self.networks: list[Any] = [None] * tp_size
        self.memory: list[dict[int, np.ndarray]] = [self._memory(m.config) for m in self.models]
        self.caches: list[dict[Any, Any]] = [{} for _ in self.models]

    def step(self, feeds: Sequence[tuple[int, Sequence[int]]]) -> np.ndarray:
        """Return [len(feeds), vocab]: the logits after each slot's tokens."""
        arrays = self._feeds(feeds)
        for slot, tokens in feeds:
            self.held[slot] += len(tokens)
        group = self.common.Group(len(self.models))
        results: list[Any] = [None] * len(self.models)

        def run(rank: int) -> None:
            try:
                results[rank] = self._run(rank, arrays, group)
            except BaseException as error:
                results[rank] = error
                group.break_up()

        threads = [threading.Thread(target=run, args=(r,)) for r in range(len(self.models))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        faults = [r for r in results if isinstance(r, BaseException)]
        faults.sort(key=lambda fault: isinstance(fault, threading.BrokenBarrierError))
        if faults:
            raise faults[0]
        for other in results[1:]:
            np.testing.assert_array_equal(other, results[0])
        return results[0]

    def _run(self, rank: int, arrays: dict[str, np.ndarray], group: Any) -> np.ndarray:
        model = self.models[rank]
        network = self.common.Network(arrays, rank, group, **self.plugins)
        network.memory, network.caches = self.memory[rank], self.caches[rank]
        self.networks[rank] = network
        self.common.set_default_net(network)
        inputs = model.prepare_inputs(
            max_batch_size=MAX_BATCH_SIZE,
            max_input_len=MAX_SEQ_LEN,
            max_seq_len=MAX_SEQ_LEN,
            max_num_tokens=MAX_SEQ_LEN * MAX_BATCH_SIZE,
            use_cache=True,
        )
        unfed = [name for name, tensor in network.inputs.items() if tensor.value is None]
        assert not unfed, f"inputs {unfed} are not what the runtime feeds"
        model.forward(**inputs)
        return network.outputs["logits"]

    def _memory(self, config: Any) -> dict[int, np.ndarray]:
        """Return the paged states by pointer; slots begin with rubbish, as reused ones do."""
        size = config.mapping.tp_size
        heads = config.rnn_hidden_size // config.rnn_head_size // size
        memory = {}
        for index, kind in enumerate(config.layer_types):
            if kind == "recurrent":
                conv = (config.conv_kernel - 1, config.rnn_conv_dim_size // size)
                rnn = (heads, config.state_size, config.rnn_head_size)
                memory[1000 + index] = np.full((MAX_BATCH_SIZE, *conv), 9.0, np.float32)
                memory[2000 + index] = np.full((MAX_BATCH_SIZE, *rnn), 9.0, np.float32)
        return memory

    def _feeds(self, feeds: Sequence[tuple[int, Sequence[int]]]) -> dict[str, np.ndarray]:
        """Return what the C++ runtime feeds a batch of these requests."""

        def ints(values: Any, dtype: type = np.int32) -> np.ndarray:
            return np.array(values, dtype)

        slots = [slot for slot, _ in feeds]
        counts = [len(tokens) for _, tokens in feeds]
        past = [self.held[slot] for slot in slots]
        pairs = list(zip(past, counts, strict=True))
        lengths = [count if held == 0 else held for held, count in pairs]
        blocks = np.zeros((1, len(feeds), 2, 2), np.int32)
        blocks[0, :, 0, 0] = slots
        pointers = {
            f"{kind}_state_ptr_{index}": ints([base + index], np.int64)
            for index, layer in enumerate(self.models[0].config.layer_types)
            for kind, base in (("conv", 1000), ("rnn", 2000))
            if layer == "recurrent"
        }
        return {
            "input_ids": ints([token for _, tokens in feeds for token in tokens]),
            "position_ids": ints([p + i for p, n in pairs for i in range(n)]),
            "last_token_ids": ints(np.cumsum(counts)),
            "slot_mapping": ints(slots),
            "host_request_types": ints([int(p > 0) for p in past]),
            "host_context_lengths": ints(lengths),
            "context_lengths": ints(lengths),
            "sequence_length": ints([p + n for p, n in pairs]),
            "host_past_key_value_lengths": ints(past),
            "host_max_attention_window_sizes": ints([MAX_SEQ_LEN]),
            "host_sink_token_length": ints([0]),
            "cache_indirection": np.zeros((len(feeds), 1, MAX_SEQ_LEN), np.int32),
            "kv_cache_block_offsets": blocks,
            "host_kv_cache_block_offsets": blocks,
            "host_kv_cache_pool_pointers": np.zeros((1, 2), np.int64),
            "host_kv_cache_pool_mapping": np.zeros((1, 2), np.int32),
            "host_runtime_perf_knobs": np.zeros(16, np.int64),
            "host_context_progress": np.zeros(1, np.int64),
            **pointers,
        }
