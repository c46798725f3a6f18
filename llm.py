"""`from nemotrt import LLM`: from the name of a checkpoint to text, in this process."""

import itertools
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, overload

from nemotrt.engines.artefact.named import engine_folder
from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions
from nemotrt.engines.checkpoint.lora.named import NamedAdapter
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.prompt import PreparedPrompt, prepare_chat, prepare_text, thinking_budget
from nemotrt.engines.runtime.request import FinishReason, Request, Token, Update
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.live import LiveRequests
from nemotrt.engines.runtime.state.kept.options import PrefixCacheOptions
from nemotrt.engines.text.reasoning import Split, Trace, TraceReader
from nemotrt.errors import ConfigError, NemotrtError

Message = Mapping[str, Any]  # {"role": "user", "content": "..."}
MAX_TOKENS = 128  # of a text that is continued; an answer may take what room there is
DEFAULT_CACHE = PrefixCacheOptions()


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one prompt.

    Attributes:
        text: the answer, or the continuation of a text, without its reasoning.
        reasoning: what the model of a chat thought before it answered; "" if it did not.
        tokens: all generated tokens in order, those of the reasoning too. Each has its id and its
            text, and its log-probabilities if `SamplingParams(logprobs=N)` asked for them.
        finish_reason: why it ended: "stop" (an end token, a stop token or a stop string), "length"
            (max_tokens) or "cancelled".
        num_prompt_tokens: tokens of the prompt, with what the chat template adds.
        cached_tokens: prompt tokens that were not computed again, because their state was kept;
            None if the engine keeps none.
    """

    text: str
    reasoning: str
    tokens: tuple[Token, ...] = field(repr=False)
    finish_reason: FinishReason
    num_prompt_tokens: int
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer as it comes.

    Attributes:
        text: what this piece adds to the answer; "" if nothing.
        reasoning: what this piece adds to the reasoning; "" if nothing.
        answer: the whole answer, in the last piece; None in those before.
    """

    text: str = ""
    reasoning: str = ""
    answer: Answer | None = None


class Asked(NamedTuple):
    """A request, and what tells its reasoning from its answer."""

    request: Request
    reader: TraceReader


class LLM:
    """An engine in this process.

    Threads may share it: their requests run together, as many at once as the engine has slots. A
    fork can't use it. A prefix that prompts share is computed once, if the engine can keep states.
    It is a context manager: `with LLM("tiny") as llm:` closes it at the end.

    Attributes:
        folder: the engine directory that is open.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        options: OpenOptions = AS_BUILT,
        prefix_cache: PrefixCacheOptions = DEFAULT_CACHE,
        lora: Mapping[str, str | Path] | None = None,
        rebuild: bool = False,
        quiet: bool = False,
    ) -> None:
        """Open an engine. The engine of a checkpoint is built once, into the user's cache.

        Args:
            model: an engine directory, or a checkpoint: a folder, OWNER/NAME[@REVISION] on the hub,
                "tiny" or "tiny-dense".
            options: how it is opened, such as `OpenOptions(num_threads=4)`; by default it uses all
                CPUs of the process.
            prefix_cache: memory for kept states, such as `PrefixCacheOptions(prefix_cache_gib=2)`;
                by default a quarter of what is free.
            lora: LoRA adapters that run beside the weights: name -> folder with PEFT's files.
            rebuild: build the engine of a checkpoint anew.
            quiet: print nothing on stderr while an engine is built.

        Raises:
            ConfigError: the name is unknown, or an option does not fit the engine.
            ArtefactError: the checkpoint or the engine directory is damaged.
            EnvironmentUnfitError: a download, a package, memory or a GPU is missing.
        """

        def make(name: str, rebuild: bool) -> Path:
            from nemotrt.build.cached import cached_engine

            say = (lambda line: None) if quiet else (lambda line: print(line, file=sys.stderr))
            return cached_engine(name, rebuild=rebuild, quiet=quiet, say=say)

        named = (NamedAdapter(name, Path(path)) for name, path in (lora or {}).items())
        options = replace(options, lora=(*options.lora, *named))
        self.folder = engine_folder(str(model), rebuild=rebuild, make=make)
        self._opened: OpenEngine = open_engine(self.folder, options)
        self._live = LiveRequests(self._opened.keeping_scheduler(prefix_cache))
        self._numbers = itertools.count(1)  # of requests

    def __enter__(self) -> Self:
        """Return the model itself, which is closed when the block ends."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Free the engine. Later calls raise NemotrtError; closing it again does nothing."""
        if self._live.close():
            self._opened.engine.close()

    @property
    def facts(self) -> dict[str, str | int]:
        """Model, backend, precision, limits (in tokens and sequences) and digest of the engine."""
        return self._opened.facts

    def settings(
        self, prompt: str | Sequence[Message], *, thinking: bool | None = None, **changes: Any
    ) -> SamplingParams:
        """Return the settings that a prompt gets by default, with some of them changed.

        A text is continued greedily, by at most 128 tokens. Messages are answered as the model's
        card advises, with reasoning or without, and until max_seq_len at most.

        Args:
            prompt: a text, or messages as in OpenAI's API.
            thinking: whether the model reasons first; None: as the messages and template say.
            changes: fields of SamplingParams by name, such as `max_tokens=24`.

        Raises:
            ConfigError: a value is out of range, or the template refuses the messages.
            TypeError: SamplingParams has no such field.
        """
        prepared = self._prepared(prompt, thinking)
        return self._settings(prepared, not isinstance(prompt, str), changes)

    @overload  # to a checker a text is a sequence of texts too; the first that fits holds
    def generate(  # type: ignore[overload-overlap]
        self, prompts: str, params: SamplingParams | None = None, *, adapter: str = ""
    ) -> Answer: ...

    @overload
    def generate(
        self, prompts: Sequence[str], params: SamplingParams | None = None, *, adapter: str = ""
    ) -> list[Answer]: ...

    def generate(
        self,
        prompts: str | Sequence[str],
        params: SamplingParams | None = None,
        *,
        adapter: str = "",
    ) -> Answer | list[Answer]:
        """Return the continuation of a text, or of each of several texts in their order.

        Several texts run together; each gets what it would get alone.

        Args:
            prompts: a text, or a sequence of texts.
            params: how tokens are chosen; None: greedily, by at most 128 tokens.
            adapter: a name of `lora`; "" for none.

        Raises:
            ConfigError: a prompt is empty or too long for the engine, or the adapter is unknown.
            NemotrtError: the engine failed.
        """
        texts = [prompts] if isinstance(prompts, str) else prompts
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
            raise ConfigError("generate() takes a text, or a list of texts; chat() takes messages.")
        answers = self._answers([self._asked(text, params, adapter=adapter) for text in texts])
        return answers[0] if isinstance(prompts, str) else answers

    def chat(
        self,
        messages: str | Sequence[Message],
        params: SamplingParams | None = None,
        *,
        thinking: bool | None = None,
        max_thinking_tokens: int | None = None,
        adapter: str = "",
    ) -> Answer:
        """Return the answer to messages, or to the one message of a user.

        Args:
            messages: as in OpenAI's API, such as `[{"role": "user", "content": "Hi"}]`; or the text
                of a user's one message.
            params: how tokens are chosen; None: as `settings` says.
            thinking: whether the model reasons first; None: as the messages and template say.
            max_thinking_tokens: tokens after which the reasoning is brought to an end; None: no
                limit.
            adapter: a name of `lora`; "" for none.

        Raises:
            ConfigError: the chat template refuses the messages, they are too long for the engine,
                or the adapter is unknown.
            NemotrtError: the engine failed.
        """
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        [answer] = self._answers(
            [self._asked(turns, params, thinking, max_thinking_tokens, adapter)]
        )
        return answer

    def stream(
        self,
        prompt: str | Sequence[Message],
        params: SamplingParams | None = None,
        *,
        thinking: bool | None = None,
        max_thinking_tokens: int | None = None,
        adapter: str = "",
    ) -> Iterator[Piece]:
        """Yield an answer piece by piece; the last piece has the whole answer.

        Closing the iterator cancels the request.

        Args:
            prompt: a text, which is continued as by `generate`; or messages, answered as by `chat`.
            params: how tokens are chosen; None: as `settings` says.
            thinking: as in `chat`; for messages.
            max_thinking_tokens: as in `chat`; of a text it counts if its trace is open.
            adapter: a name of `lora`; "" for none.

        Raises:
            ConfigError: as `generate` and `chat` raise it.
            NemotrtError: the engine failed.
        """
        asked = self._asked(prompt, params, thinking, max_thinking_tokens, adapter)
        with self._live.running([asked.request]):
            yield from self._pieces(asked)

    def _prepared(self, prompt: str | Sequence[Message], thinking: bool | None) -> PreparedPrompt:
        if isinstance(prompt, str):
            if thinking is not None:
                raise ConfigError("thinking is for messages; a text is continued as it stands.")
            return prepare_text(self._opened, prompt)
        _check_messages(prompt)
        return prepare_chat(self._opened, prompt, thinking=thinking)

    def _settings(
        self, prepared: PreparedPrompt, is_chat: bool, changes: Mapping[str, Any]
    ) -> SamplingParams:
        """Return the settings of a prompt, with some changed."""
        room = max(self._opened.manifest.limits.max_seq_len - len(prepared.ids), 1)
        most = room if is_chat else min(room, MAX_TOKENS)
        return SamplingParams(**{"max_tokens": most, **prepared.defaults, **changes})

    def _asked(
        self,
        prompt: str | Sequence[Message],
        params: SamplingParams | None,
        thinking: bool | None = None,
        max_thinking_tokens: int | None = None,
        adapter: str = "",
    ) -> Asked:
        """Return the request for a prompt; nothing runs yet."""
        is_chat = not isinstance(prompt, str)
        prepared = self._prepared(prompt, thinking)
        params = params or self._settings(prepared, is_chat, {})
        guide = None
        if max_thinking_tokens is not None:
            guide = thinking_budget(self._opened, prepared, max_thinking_tokens)
        name, trace = str(next(self._numbers)), prepared.trace
        request = Request(name, prepared.ids, params, guide, trace, adapter=adapter)
        chat = prepared.turn.chat
        return Asked(request, TraceReader(chat, prepared.trace if is_chat else Trace.CLOSED))

    def _answers(self, several: Sequence[Asked]) -> list[Answer]:
        """Return the whole answers of requests that run together."""
        with self._live.running([asked.request for asked in several]):
            last = [deque(self._pieces(asked), maxlen=1).pop() for asked in several]
        return [piece.answer for piece in last if piece.answer]

    def _pieces(self, asked: Asked) -> Iterator[Piece]:
        """Yield what a live request brings, its reasoning apart."""
        splits, updates = [Split()], [Update("")]
        for update in self._live.updates(asked.request.request_id):
            updates.append(update)
            splits.append(asked.reader.push(update.text))
            yield Piece(splits[-1].content, splits[-1].reasoning)
        end = updates[-1]
        assert end.finish_reason is not None  # the last update has it
        if end.finish_reason is FinishReason.ERROR:
            raise NemotrtError(f"the request failed: {end.error}")
        splits.append(asked.reader.flush())
        answer = Answer(
            text="".join(split.content for split in splits),
            reasoning="".join(split.reasoning for split in splits),
            tokens=tuple(token for update in updates for token in update.tokens),
            finish_reason=end.finish_reason,
            num_prompt_tokens=len(asked.request.prompt),
            cached_tokens=next(
                (u.cached_tokens for u in updates if u.cached_tokens is not None), None
            ),
        )
        yield Piece(splits[-1].content, splits[-1].reasoning, answer)


def _check_messages(messages: Sequence[Message]) -> None:
    """Raise ConfigError unless these are messages: one that is taken for several has no role."""
    is_list = isinstance(messages, Sequence)
    if not is_list or not messages or not all(isinstance(one, Mapping) for one in messages):
        raise ConfigError(
            'messages must be a list of mappings, such as {"role": "user", "content": "..."}.'
        )
