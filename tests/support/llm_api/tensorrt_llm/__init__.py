"""A stand-in for TensorRT-LLM's LLM API: its names, signatures and rules, on our CPU engine.

What it enforces is TensorRT-LLM's: LLM(model, ...) takes the arguments of TorchLlmArgs and no
other, nested configs are strict, SamplingParams has these fields, `generate_async` can be iterated
asynchronously only where an event loop ran when it was called, `token_ids` grows in place, a stop
token is cut off unless asked for, logprobs are one dict a token, an aborted request ends as
"cancelled" a moment later. What it can't know is left out: speed, memory, kernels.

Sources: TensorRT-LLM tensorrt_llm/llmapi/{llm,llm_args}.py, executor/result.py,
sampling_params.py of 1.2 and the 1.3 release candidates.
"""

import asyncio
import queue
import random
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines import opening
from nemotrt.engines.runtime import request
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.sampling import params as sampling
from nemotrt.engines.runtime.scheduler import Scheduler

__version__ = "1.2.1"


class RequestError(RuntimeError):
    """A fault of one request."""


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class KvCacheConfig(_Strict):
    enable_block_reuse: bool = True
    max_tokens: int | None = None
    max_attention_window: list[int] | None = None
    sink_token_length: int | None = None
    free_gpu_memory_fraction: float | None = pydantic.Field(0.9, ge=0, le=1)
    host_cache_size: int | None = None
    onboard_blocks: bool = True
    cross_kv_cache_fraction: float | None = None
    secondary_offload_min_priority: int | None = None
    event_buffer_max_size: int = 0
    attention_dp_events_gather_period_ms: int = 5
    enable_partial_reuse: bool = True
    copy_on_partial_reuse: bool = True
    use_uvm: bool = False
    max_gpu_total_bytes: int = 0
    dtype: str = "auto"
    mamba_ssm_cache_dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto"
    tokens_per_block: int = 32


class CudaGraphConfig(_Strict):
    batch_sizes: list[int] | None = None
    max_batch_size: int = 0
    enable_padding: bool = False


class TorchLlmArgs(_Strict):
    model: str | Path
    tokenizer: Any = None
    tokenizer_mode: Literal["auto", "slow"] = "auto"
    skip_tokenizer_init: bool = False
    trust_remote_code: bool = False
    tensor_parallel_size: int = 1
    dtype: str = "auto"
    revision: str | None = None
    tokenizer_revision: str | None = None
    pipeline_parallel_size: int = 1
    context_parallel_size: int = 1
    kv_cache_config: KvCacheConfig = pydantic.Field(default_factory=KvCacheConfig)
    enable_chunked_prefill: bool = False
    guided_decoding_backend: Literal["xgrammar", "llguidance"] | None = None
    max_batch_size: int | None = 2048
    max_input_len: int | None = 1024
    max_seq_len: int | None = None
    max_beam_width: int | None = 1
    max_num_tokens: int | None = 8192
    backend: str | None = None
    stream_interval: int = 1
    reasoning_parser: str | None = None
    cuda_graph_config: CudaGraphConfig | None = pydantic.Field(default_factory=CudaGraphConfig)
    disable_overlap_scheduler: bool = False
    attn_backend: str = "TRTLLM"
    print_iter_log: bool = False
    enable_iter_perf_stats: bool = False

    @pydantic.model_validator(mode="after")
    def validate_cuda_graph_config(self) -> "TorchLlmArgs":
        config = self.cuda_graph_config
        if config is not None and config.batch_sizes and config.max_batch_size:
            raise ValueError(
                "Please don't set both cuda_graph_config.batch_sizes and max_batch_size"
            )
        return self


@dataclass(slots=True, kw_only=True)
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
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    length_penalty: float | None = None
    early_stopping: int | None = None
    no_repeat_ngram_size: int | None = None
    min_p: float | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    return_context_logits: bool = False
    return_generation_logits: bool = False
    exclude_input_from_output: bool = True
    return_perf_metrics: bool = False
    guided_decoding: Any = None
    ignore_eos: bool = False
    detokenize: bool = True
    add_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True

    @property
    def is_greedy(self) -> bool:
        """TensorRT-LLM's rule."""
        given = (self.temperature, self.top_p, self.top_k)
        return given == (None, None, None) or self.top_k == 1 or 0 in (self.top_p, self.temperature)


@dataclass(slots=True)
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass(slots=True)
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
        self._llm, self._params = llm, params
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
            self._queue: asyncio.Queue[Any] = asyncio.Queue()
        except RuntimeError:
            self._loop = None

    def abort(self) -> None:
        self._llm.aborted.append(self.request_id)
        self._llm._inbox.put(("cancel", self.request_id))

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
        output = self.outputs[0]
        for token in news.tokens:
            output.token_ids.append(token.id)
            if self._params.logprobs:
                found = {i: Logprob(p, rank + 1) for rank, (i, p) in enumerate(token.top_logprobs)}
                found.setdefault(token.id, Logprob(token.logprob or 0.0))
                output.logprobs.append(found)
        if news.finish_reason is None:
            return
        self.finished = True
        if self._llm.HIDES_END and output.token_ids[-1:] == [self._params.end_id]:
            del output.token_ids[-1]
        output.finish_reason = str(news.finish_reason)  # type: ignore[assignment]
        ends = self._params.stop_token_ids or ()
        if output.token_ids and output.token_ids[-1] in ends:
            output.stop_reason = output.token_ids[-1]
            if not self._params.include_stop_str_in_output:
                del output.token_ids[-1]


class LLM:
    """The LLM; `CHUNKS` seeds how many tokens a response carries, `FAULT` breaks the executor.

    `HIDES_END` leaves an end token (not a stop token) out of the ids: versions differ in that.
    """

    CHUNKS = 0
    HIDES_END = False
    CONTEXT_ROWS: int | None = None  # how many of the prompt's rows of logits it gives
    FAULT: BaseException | None = None

    def __init__(
        self,
        model: str | Path,
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
        self.args = TorchLlmArgs(**given, **kwargs)
        if self.args.tensor_parallel_size > 1:
            raise RuntimeError("Only 1 GPUs are available, but more are required.")
        self.is_shut_down = False
        self.aborted: list[str] = []
        limits = Limits(self.args.max_batch_size or 1, self.args.max_seq_len or 1, 16)
        self._folder = tempfile.TemporaryDirectory()
        target = Path(self._folder.name) / "engine"
        build_engine(Path(model), target, BuildSpec(limits=limits))
        self._engine = opening.open_engine(target, num_threads=1).engine
        self._context_engine = opening.open_engine(target, num_threads=1).engine
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._results: dict[str, RequestOutput] = {}
        self._random = random.Random(self.CHUNKS)
        self._count = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
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
    ) -> RequestOutput:
        params = sampling_params or SamplingParams()
        if params.end_id is None and self.args.skip_tokenizer_init:
            raise ValueError("tokenizer is required to reset end_id if it is None")
        if not isinstance(inputs, list):
            raise TypeError(f"The inputs must be a list of int here, but got {type(inputs)}")
        if len(inputs) + params.max_tokens > (self.args.max_seq_len or 0):
            raise ValueError("prompt length plus max_tokens should not exceed max_seq_len")
        self._count += 1
        result = RequestOutput(self, str(self._count), params)
        if params.return_context_logits:
            result.context_logits = self._context_logits(inputs)
        self._results[result.request_id] = result
        self._inbox.put(("submit", _request(result.request_id, inputs, params)))
        return result

    def shutdown(self) -> None:
        self._inbox.put(("stop", None))
        self._thread.join()
        self._engine.close()
        self._context_engine.close()
        self._folder.cleanup()
        self.is_shut_down = True

    def _context_logits(self, prompt: list[int]) -> Any:
        import torch

        slot, size = self._context_engine.allocate(), 16
        pieces = [prompt[start : start + size] for start in range(0, len(prompt), size)]
        rows = [self._context_engine.step([Feed(slot, p, len(p))]).copy() for p in pieces]
        self._context_engine.release(slot)
        return torch.from_numpy(np.concatenate(rows))[: self.CONTEXT_ROWS]

    def _run(self) -> None:
        scheduler = Scheduler(self._engine)
        held: dict[str, list[request.Update]] = {}
        while True:
            while scheduler.is_idle or not self._inbox.empty():
                what, value = self._inbox.get()
                if what == "stop":
                    return
                (scheduler.submit if what == "submit" else scheduler.cancel)(value)
            for update in scheduler.step():
                pending = held.setdefault(update.request_id, [])
                pending.append(update)
                if update.finish_reason is not None or self._random.random() < 0.5:
                    self._send(held.pop(update.request_id))

    def _send(self, updates: list[request.Update]) -> None:
        tokens = tuple(token for update in updates for token in update.tokens)
        name = updates[-1].request_id
        whole = request.Update(name, tokens, "", updates[-1].finish_reason)
        self._results[name]._put(self.FAULT or whole)


def _biases(bias: Any) -> tuple[tuple[int, float], ...]:
    """The real one adds a float32 tensor [vocab] to the logits."""
    if bias is None:
        return ()
    assert str(bias.dtype) == "torch.float32" and bias.ndim == 1
    return tuple((i, value) for i, value in enumerate(bias.tolist()) if value)


def _request(name: str, prompt: list[int], params: SamplingParams) -> request.Request:
    # The real one forbids end_id alone before min_tokens; our scheduler below forbids them all.
    assert not (params.min_tokens and params.stop_token_ids), "a stop token may come early"
    ends = (*(params.stop_token_ids or ()), *(() if params.ignore_eos else (params.end_id or 0,)))
    fields = sampling.SamplingParams(
        max_tokens=params.max_tokens,
        min_tokens=params.min_tokens or 0,
        temperature=0.0 if params.is_greedy else (params.temperature or 1.0),
        top_k=params.top_k or 0,
        top_p=1.0 if params.top_p is None else params.top_p,
        seed=params.seed,
        repetition_penalty=params.repetition_penalty or 1.0,
        presence_penalty=params.presence_penalty or 0.0,
        frequency_penalty=params.frequency_penalty or 0.0,
        min_p=params.min_p or 0.0,
        logit_bias=_biases(params.embedding_bias),
        stop_token_ids=tuple(end for end in ends if end >= 0),
        logprobs=params.logprobs,
    )
    return request.Request(name, tuple(prompt), fields)
