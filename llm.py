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
    """What came of one prompt.

    Attributes:
        text: the answer, or what a text is continued with.
        reasoning: what a chat's model thought before; "" where it did not.
        tokens: all that were generated, each with its id, its text and what was asked for.
        finish_reason: "stop", "length" or "cancelled".
        num_prompt_tokens: of the prompt.
        cached_tokens: how many of those were not computed, since their state was kept; None where
            none is kept.
    """

    text: str
    reasoning: str
    tokens: tuple[Token, ...] = field(repr=False)
    finish_reason: FinishReason
    num_prompt_tokens: int
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer as it comes; the last one has all of it as `answer`."""

    text: str = ""
    reasoning: str = ""
    answer: Answer | None = None


class Asked(NamedTuple):
    """A request, and what tells its reasoning from its answer."""

    request: Request
    reader: TraceReader


class LLM:
    """An engine in this process; threads may share it, and their requests run together.

    Prompts that begin alike are computed once, where the engine's states can be kept.
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
        """Open an engine; of a checkpoint one is built into the user's cache, once.

        Args:
            model: an engine directory, or a checkpoint: a folder, OWNER/NAME[@REVISION] on the hub,
                "tiny" or "tiny-dense".
            options: how it is opened: threads, where its weights are.
            prefix_cache: how much of the memory states of prompts may take.
            lora: folders of LoRA adapters that run beside the weights, by name.
            rebuild: build the engine of a checkpoint anew.
            quiet: do not say on stderr what is built.

        Raises:
            NemotrtError: the name means nothing, or no engine can be had of it here.
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
        """Free the engine; what is called then is refused, and closing it again does nothing."""
        if self._live.close():
            self._opened.engine.close()

    @property
    def facts(self) -> dict[str, str | int]:
        """What tells this engine from others: model, backend, precision, limits."""
        return self._opened.facts

    def settings(
        self, prompt: str | Sequence[Message], *, thinking: bool | None = None, **changes: Any
    ) -> SamplingParams:
        """Return the settings that a prompt gets where none are given, with some of them changed.

        A text is continued greedily. Messages are answered as the model's card advises, with
        reasoning and without, and as long as there is room.
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
        """Return what a text is continued with; of several, which run together, in their order.

        `adapter` is one of `lora`, "" none.

        Raises:
            ConfigError: a prompt is empty, or too long for the engine; or there is no such adapter.
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
        """Return the answer to messages, or to what a user says.

        Args:
            messages: as in OpenAI's API, or the text of a user's one message.
            params: how tokens are chosen; default as the model's card says.
            thinking: whether the model reasons first; default as the messages and template say.
            max_thinking_tokens: after so many its reasoning is brought to an end.
            adapter: one of `lora`, "" none.

        Raises:
            ConfigError: the chat template refuses the messages, or they are too long.
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
        """Yield an answer as it comes: a text is continued as by `generate`, messages by `chat`.

        Closing the iterator ends the request.
        """
        asked = self._asked(prompt, params, thinking, max_thinking_tokens, adapter)
        with self._live.running([asked.request]):
            yield from self._pieces(asked)

    def _prepared(self, prompt: str | Sequence[Message], thinking: bool | None) -> PreparedPrompt:
        if isinstance(prompt, str):
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
