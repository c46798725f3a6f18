"""A stand-in for TensorRT-LLM's LLM API: its names, signatures and rules, on our CPU engine.

What it enforces is TensorRT-LLM's: LLM(model, ...) takes the arguments of TorchLlmArgs and no
other, nested configs are strict, SamplingParams has these fields, `generate_async` can be iterated
asynchronously only where an event loop ran when it was called, `token_ids` grows in place, a stop
token is cut off unless asked for, logprobs are one dict a token, an aborted request ends as
"cancelled" a moment later, a prefix is reused where its state was kept and within its salt. What it
can't know is left out: speed, memory, kernels.

It needs the standard library alone, and computes in a process of its own (`llm_worker`), as the
real one does in MPI's. `STAND_IN_VERSION` says which version's fields it has; `STAND_IN_KNOBS`
names a JSON file of what goes wrong, and beside it is what was aborted.

Sources: TensorRT-LLM tensorrt_llm/llmapi/{llm,llm_args}.py, executor/{request,result}.py and
sampling_params.py of 1.2.1; the reference of KvCacheConfig of 1.3.0rc27 and 1.4.0rc4;
_torch/peft/lora/{config,manager}.py of main.
"""

import asyncio
import base64
import json
import os
import re
import subprocess
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

__version__ = os.environ.get("STAND_IN_VERSION", "1.2.1")
# numpy is the one of this world, where there is one: 1.2.1 wants numpy < 2.
if os.environ.get("STAND_IN_NUMPY"):
    import numpy

    assert numpy.__version__.startswith("1."), numpy.__version__
torch.cuda.capability = json.loads(os.environ.get("STAND_IN_CAPABILITY", "null"))

OF_CACHE = {
    "enable_block_reuse": bool,
    "max_tokens": int,
    "max_attention_window": list,
    "sink_token_length": int,
    "free_gpu_memory_fraction": float,
    "host_cache_size": int,
    "onboard_blocks": bool,
    "cross_kv_cache_fraction": float,
    "secondary_offload_min_priority": int,
    "event_buffer_max_size": int,
    "attention_dp_events_gather_period_ms": int,
    "enable_partial_reuse": bool,
    "copy_on_partial_reuse": bool,
    "use_uvm": bool,
    "max_gpu_total_bytes": int,
    "dtype": str,
    "mamba_ssm_cache_dtype": str,
    "tokens_per_block": int,
}
if not __version__.startswith("1.2."):
    OF_CACHE |= {
        "disk_cache_size": int,
        "disk_cache_path": str,
        "iteration_stats_interval": int,
        "mamba_ssm_stochastic_rounding": bool,
        "mamba_ssm_philox_rounds": int,
        "mamba_state_cache_interval": int,
        "mamba_state_config": dict,
        "use_kv_cache_manager_v2": (bool, str),
        "avg_seq_len": int,
    }
OF_STATES = {
    "periodic_snapshot_interval": int,
    "additional_snapshot_offsets_from_start": list,
    "additional_snapshot_offsets_from_end": list,
    "enable_branch_snapshot": bool,
}
OF_LORA = {
    "lora_dir": list,
    "lora_ckpt_source": str,
    "max_lora_rank": int,
    "lora_target_modules": list,
    "trtllm_modules_to_hf_modules": dict,
    "max_loras": int,
    "max_cpu_loras": int,
    "swap_gate_up_proj_lora_b_weight": bool,
}
OF_GRAPHS = {"batch_sizes": list, "max_batch_size": int, "enable_padding": bool}
OF_LLM = {
    "model": str,
    "tokenizer": str,
    "tokenizer_mode": str,
    "skip_tokenizer_init": bool,
    "trust_remote_code": bool,
    "tensor_parallel_size": int,
    "dtype": str,
    "revision": str,
    "tokenizer_revision": str,
    "pipeline_parallel_size": int,
    "context_parallel_size": int,
    "kv_cache_config": dict,
    "enable_chunked_prefill": bool,
    "guided_decoding_backend": str,
    "max_batch_size": int,
    "max_input_len": int,
    "max_seq_len": int,
    "max_beam_width": int,
    "max_num_tokens": int,
    "backend": str,
    "stream_interval": int,
    "reasoning_parser": str,
    "cuda_graph_config": (dict, type(None)),
    "lora_config": dict,
    "disable_overlap_scheduler": bool,
    "attn_backend": str,
    "print_iter_log": bool,
    "enable_iter_perf_stats": bool,
}


# Of its loader: layers, a number, what a layer calls its module, and the module's own name.
HF_LORA = re.compile(r".*\.\d+\.(\w+)\.(\w+|\w+\.\w+)\.lora_(A|B)\.weight")


class RequestError(RuntimeError):
    """A fault of one request."""


@dataclass(kw_only=True)
class SamplingParams:
    end_id: int | None = None
    pad_id: int | None = None
    max_tokens: int = 32
    bad: Any = None
    bad_token_ids: list[int] | None = None
    stop: Any = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    embedding_bias: Any = None
    logits_processor: Any = None
    apply_batched_logits_processor: bool = False
    n: int = 1
    best_of: int | None = None
    use_beam_search: bool = False
    top_k: int | None = None
    top_p: float | None = None
    top_p_min: float | None = None
    top_p_reset_ids: int | None = None
    top_p_decay: float | None = None
    seed: int | None = None
    temperature: float | None = None
    min_tokens: int | None = None
    beam_search_diversity_rate: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    length_penalty: float | None = None
    early_stopping: int | None = None
    no_repeat_ngram_size: int | None = None
    min_p: float | None = None
    beam_width_array: list[int] | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    return_context_logits: bool = False
    return_generation_logits: bool = False
    exclude_input_from_output: bool = True
    return_encoder_output: bool = False
    return_perf_metrics: bool = False
    additional_model_outputs: Any = None
    lookahead_config: Any = None
    guided_decoding: Any = None
    ignore_eos: bool = False
    detokenize: bool = True
    add_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: Literal["stop", "length", "timeout", "cancelled"] | None = None
    stop_reason: int | str | None = None


class RequestOutput:
    """A result that streams; made by LLM.generate_async alone."""

    def __init__(self, llm: "LLM", name: str, params: SamplingParams) -> None:
        self.request_id = name
        self.outputs = [CompletionOutput(0)]
        self.finished = False
        self.context_logits: Any = None  # a torch tensor [prompt tokens, vocab]
        self.cached_tokens = 0
        self._llm, self._params = llm, params
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
            self._queue: asyncio.Queue[Any] = asyncio.Queue()
        except RuntimeError:
            self._loop = None

    def abort(self) -> None:
        if path := os.environ.get("STAND_IN_KNOBS"):
            with open(f"{path}.aborted", "a") as stream:
                stream.write(f"{self.request_id}\n")
        self._llm._tell({"op": "cancel", "name": self.request_id})

    def __aiter__(self) -> "RequestOutput":
        return self

    async def __anext__(self) -> "RequestOutput":
        if self.finished:
            raise StopAsyncIteration
        assert self._loop is not None, "no event loop was present during initialization"
        self._take(await self._queue.get())
        return self

    def _put(self, news: Any) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # it too drops the results of a loop that has stopped
            self._loop.call_soon_threadsafe(self._queue.put_nowait, news)

    def _take(self, news: Any) -> None:
        if isinstance(news, BaseException):
            raise news
        knobs, output = _knobs(), self.outputs[0]
        if "context" in news:
            rows = base64.b64decode(news["context"])
            rows = rows[4 * news["vocab"] * self.cached_tokens :]  # of what was computed alone
            shape = (len(rows) // (4 * news["vocab"]), news["vocab"])
            self.context_logits = torch.Tensor(rows, shape)[: knobs.get("context_rows")]
        for token, logprob, top in news["tokens"]:
            output.token_ids.append(token)
            if self._params.logprobs:
                found = {i: Logprob(p, rank + 1) for rank, (i, p) in enumerate(top)}
                found.setdefault(token, Logprob(logprob or 0.0))
                if "logprob" in knobs:
                    next(iter(found.values())).logprob = float(knobs["logprob"])
                output.logprobs.append(found)
        if news["finish_reason"] is None:
            return
        self.finished = True
        if knobs.get("hides_end") and output.token_ids[-1:] == [self._params.end_id]:
            del output.token_ids[-1]
        output.finish_reason = news["finish_reason"]
        ends = self._params.stop_token_ids or ()
        if output.token_ids and output.token_ids[-1] in ends:
            output.stop_reason = output.token_ids[-1]
            if not self._params.include_stop_str_in_output:
                del output.token_ids[-1]


class _Kept:
    """Prefixes of which it has the blocks and the recurrent state: exact points, by salt.

    Without a point no prefix of a hybrid is reused, whatever enable_block_reuse says.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        points = config.get("mamba_state_config", {}) if config.get("enable_block_reuse") else {}
        _check("MambaStateConfig", OF_STATES, points)
        self._interval = points.get("periodic_snapshot_interval", 0)
        self._from_end = points.get("additional_snapshot_offsets_from_end", [])
        self._prefixes: dict[str | None, set[tuple[int, ...]]] = {}

    def keep(self, salt: str | None, prompt: list[int]) -> None:
        size = len(prompt)
        points = {*range(self._interval, size + 1, self._interval)} if self._interval else set()
        points |= {size - offset for offset in self._from_end if offset < size}
        self._prefixes.setdefault(salt, set()).update(tuple(prompt[:point]) for point in points)

    def find(self, salt: str | None, prompt: list[int]) -> int:
        kept = self._prefixes.get(salt, set())
        return max((n for n in range(1, len(prompt)) if tuple(prompt[:n]) in kept), default=0)


class LLM:
    """The LLM."""

    def __init__(
        self,
        model: str,
        tokenizer: Any = None,
        tokenizer_mode: Literal["auto", "slow"] = "auto",
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "kwargs")}
        self.args = {name: value for name, value in given.items() if value is not None} | kwargs
        _check("TorchLlmArgs", OF_LLM, self.args)
        _check("KvCacheConfig", OF_CACHE, self.args.get("kv_cache_config", {}))
        graphs = self.args.get("cuda_graph_config") or {}
        self._lora = self.args.get("lora_config")
        _check("LoraConfig", OF_LORA, self._lora or {})
        _check("CudaGraphConfig", OF_GRAPHS, graphs)
        if graphs.get("batch_sizes") and graphs.get("max_batch_size"):
            raise ValueError(
                "Please don't set both cuda_graph_config.batch_sizes and max_batch_size"
            )
        if tensor_parallel_size > 1:
            raise RuntimeError("Only 1 GPUs are available, but more are required.")
        if _knobs().get("dies_at_start"):
            os.abort()
        worker = os.path.join(os.path.dirname(__file__), "..", "..", "llm_worker.py")
        sizes = [str(self.args["max_batch_size"]), str(self.args["max_seq_len"])]
        self._worker = subprocess.Popen(
            [os.environ["STAND_IN_PYTHON"], "-I", worker, model, *sizes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._worker.stdout is not None
        assert json.loads(self._worker.stdout.readline()) == {"op": "ready"}
        self._kept = _Kept(self.args.get("kv_cache_config", {}))
        self._results: dict[str, RequestOutput] = {}
        self._count = 0
        self._thread = threading.Thread(target=self._hear, daemon=True)
        self._thread.start()

    def generate_async(
        self,
        inputs: str | list[int],
        sampling_params: SamplingParams | None = None,
        lora_request: Any = None,
        prompt_adapter_request: Any = None,
        streaming: bool = False,
        kv_cache_retention_config: Any = None,
        disaggregated_params: Any = None,
        trace_headers: Any = None,
        _postproc_params: Any = None,
        scheduling_params: Any = None,
        cache_salt: str | None = None,
    ) -> RequestOutput:
        if cache_salt:
            print(f"salt {cache_salt}", flush=True)
        params = sampling_params or SamplingParams()
        if params.end_id is None and self.args["skip_tokenizer_init"]:
            raise ValueError("tokenizer is required to reset end_id if it is None")
        if not isinstance(inputs, list):
            raise TypeError(f"The inputs must be a list of int here, but got {type(inputs)}")
        if len(inputs) + params.max_tokens > self.args["max_seq_len"]:
            raise ValueError("prompt length plus max_tokens should not exceed max_seq_len")
        self._count += 1
        result = RequestOutput(self, str(self._count), params)
        result.cached_tokens = _knobs().get("cached", self._kept.find(cache_salt, inputs))
        self._kept.keep(cache_salt, inputs)
        self._results[result.request_id] = result
        bias, params.embedding_bias = params.embedding_bias, None
        told = asdict(params) | {"biases": _biases(bias)}
        if lora_request is not None:
            told["adapter"] = self._adapter(lora_request)
        self._tell({"op": "submit", "name": result.request_id, "prompt": inputs, "params": told})
        return result

    def _adapter(self, wanted: Any) -> str:
        """The folder of a request's adapter, every tensor of which must reach a module."""
        if self._lora is None:
            raise ValueError("lora_request is given, and LoRA is not enabled")
        with open(os.path.join(wanted.lora_path, "adapter_model.safetensors"), "rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        known = set(self._lora["trtllm_modules_to_hf_modules"].values())
        assert set(self._lora["trtllm_modules_to_hf_modules"]) == set(
            self._lora["lora_target_modules"]
        )
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            found = HF_LORA.fullmatch(name)
            assert found, f"unsupported key {name} from HF LoRA weights"
            of_module = f"{found[1]}.{found[2]}", found[2]
            assert known & set(of_module), f"{of_module} is not in supported list {known}"
            is_down = found[3] == "A"
            assert entry["shape"][0 if is_down else 1] <= self._lora["max_lora_rank"]
        return str(wanted.lora_path)

    def shutdown(self) -> None:
        assert self._worker.stdin is not None
        self._worker.stdin.close()
        self._worker.wait()
        print("the stand-in is shut down", flush=True)

    def _tell(self, message: Any) -> None:
        assert self._worker.stdin is not None
        self._worker.stdin.write(json.dumps(message) + "\n")
        self._worker.stdin.flush()

    def _hear(self) -> None:
        assert self._worker.stdout is not None
        for line in self._worker.stdout:
            news, knobs = json.loads(line), _knobs()
            faults = {"request": RequestError("too long"), "fatal": RuntimeError("out of memory")}
            if knobs.get("dies"):
                print("CUDA error: an illegal memory access was encountered", flush=True)
                os.abort()
            if not knobs.get("is_silent"):
                self._results[news["name"]]._put(faults.get(knobs.get("fault", ""), news))


def _knobs() -> dict[str, Any]:
    """What goes wrong now."""
    try:
        with open(os.environ.get("STAND_IN_KNOBS", "")) as stream:
            found: dict[str, Any] = json.load(stream)
            return found
    except (FileNotFoundError, ValueError):  # it is being written
        return {}


def _check(what: str, fields: dict[str, Any], given: dict[str, Any]) -> None:
    """A strict config: what it does not have, or has otherwise, is refused."""
    for name, value in given.items():
        if name not in fields:
            raise ValueError(f"{what}: {name}: Extra inputs are not permitted")
        if not isinstance(value, fields[name]):
            raise ValueError(f"{what}: {name}: Input should be a valid {fields[name]}")


def _biases(bias: Any) -> list[tuple[int, float]]:
    """The real one adds a float32 tensor [vocab] to the logits."""
    if bias is None:
        return []
    assert str(bias.dtype) == "torch.float32" and bias.ndim == 1
    return [(i, value) for i, value in enumerate(bias.tolist()) if value]
