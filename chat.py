"""`nemotrt chat`: a conversation in a terminal, or line by line from standard input."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from nemotrt.commandline.kinds import COUNT
from nemotrt.commandline.options import options_of
from nemotrt.commandline.shared import config_option
from nemotrt.engines.artefact.named import ENGINE, rebuild_option
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.checkpoint.hub.parameter import offline_option
from nemotrt.engines.checkpoint.lora.named import adapter_option, chosen_adapter
from nemotrt.engines.runtime.state.kept.options import PrefixCacheOptions
from nemotrt.errors import ConfigError, NemotrtError, unknown_name

if TYPE_CHECKING:
    from nemotrt.llm import LLM, Answer

QUOTES = '"""'  # around a message of several lines
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
SETTINGS = ("max_tokens", "temperature", "top_p", "top_k", "seed")
WORDS = {
    "/think": "let the model reason before it answers",
    "/no_think": "let it answer at once",
    "/budget": "N: end its reasoning after about N tokens; without N no more",
    "/system": "TEXT: the system message from now on; without TEXT none",
    "/reset": "forget the conversation",
    "/help": "these words",
    "/exit": "end, as Ctrl-D does",
}


@click.command()
@click.argument("engine", type=ENGINE)
@click.option("--system", default=None, help="The system message.")
@click.option(
    "--think/--no-think",
    "thinking",
    default=None,
    help="Answer with or without reasoning.  [default: as the model has it]",
)
@click.option("--budget", type=click.IntRange(0), help="End reasoning after about so many tokens.")
@click.option(
    "--max-tokens", type=COUNT, help="Most tokens of an answer.  [default: what room there is]"
)
@click.option("--temperature", type=float, help="0 is greedy.  [default: the model card's]")
@click.option(
    "--top-p", type=float, help="Share of probability to choose from.  [default: the model card's]"
)
@click.option("--top-k", type=int, help="0 keeps every token.  [default: the model card's]")
@click.option(
    "--seed", type=int, help="Seed of the first answer; each later answer takes the next number."
)
@options_of(PrefixCacheOptions)
@options_of(OpenOptions)
@adapter_option
@rebuild_option
@offline_option
@config_option
def chat(
    engine: str,
    system: str | None,
    thinking: bool | None,
    budget: int | None,
    prefix_cache_options: PrefixCacheOptions,
    open_options: OpenOptions,
    adapter: str | None,
    rebuild: bool,
    **given: Any,
) -> None:
    """Talk with ENGINE: answers as they come, reasoning dimmed.

    ENGINE is an engine directory, or a checkpoint (a folder, OWNER/NAME[@REVISION] on the hub, or
    tiny), whose engine for the CPU is built into the cache, once.

    Enter sends a message, Alt-Enter begins a new line, and so does all between two lines of
    \"\"\". Ctrl-C stops an answer, Ctrl-D ends. A line that begins with a word of /help is for the
    session, not for the model. Without a terminal each line of standard input is a message;
    answers are printed, reasoning goes to stderr, and the first fault ends the command.
    """
    from nemotrt.llm import LLM

    chosen = chosen_adapter(open_options.lora, adapter)
    with LLM(
        engine, options=open_options, prefix_cache=prefix_cache_options, rebuild=rebuild
    ) as llm:
        session = Session(
            llm,
            settings={name: given[name] for name in SETTINGS if given[name] is not None},
            system=system,
            thinking=thinking,
            budget=budget,
            adapter=chosen,
        )
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            for text in messages(sys.stdin.readline):
                if not session.take(text):
                    break
            return
        limits = f"{llm.facts['backend']}, {llm.facts['max_seq_len']} tokens"
        click.echo(f"{engine} ({limits}). /help lists what you may say beside messages.", err=True)
        _talk(session)


@dataclass(slots=True)
class Session:
    """A conversation, and how its answers are made; a turn that fails leaves no trace in it."""

    llm: "LLM"
    settings: dict[str, Any] = field(default_factory=dict)
    system: str | None = None
    thinking: bool | None = None
    budget: int | None = None
    adapter: str = ""
    turns: list[dict[str, str]] = field(default_factory=list)

    def take(self, text: str) -> bool:
        """Do what a line says, or answer it; False if it ends the session.

        Raises:
            ConfigError: there is no such word, or the engine can't take the message.
            NemotrtError: the engine failed.
        """
        word, _, rest = text.partition(" ")
        if not text.strip():
            return True
        if word in WORDS:
            return self._do(word, rest.strip())
        if word[:1] == "/" and "/" not in word[1:]:
            raise unknown_name("word", word, WORDS)
        self._answer(text)
        return True

    def _do(self, word: str, rest: str) -> bool:
        """Change the session; False if that ends it."""
        if rest and word not in ("/budget", "/system"):
            raise ConfigError(f"{word} stands alone, got {rest!r}; a space before it sends it.")
        if rest and word == "/budget" and not (rest.isascii() and rest.isdigit()):
            raise ConfigError(f"/budget takes a number of tokens, got {rest!r}.")
        match word:
            case "/think" | "/no_think":
                self.thinking = word == "/think"
            case "/budget":
                self.budget = int(rest) if rest else None
            case "/system":
                self.system = rest or None
            case "/reset":
                self.turns.clear()
            case "/help":
                click.echo("\n".join(f"{name:10} {text}" for name, text in WORDS.items()), err=True)
        return word != "/exit"

    def _answer(self, text: str) -> None:
        """Print the answer to a message as it comes, and remember both."""
        head = [] if self.system is None else [{"role": "system", "content": self.system}]
        asked = {"role": "user", "content": text}
        turns = [*head, *self.turns, asked]
        params = self.llm.settings(turns, thinking=self.thinking, **self.settings)
        pieces = self.llm.stream(
            turns,
            params,
            thinking=self.thinking,
            max_thinking_tokens=self.budget,
            adapter=self.adapter,
        )
        said, start_s, answer = "", time.perf_counter(), None
        show = Screen()
        try:
            with closing(pieces):  # type: ignore[type-var]
                for piece in pieces:
                    said += piece.text
                    answer = piece.answer
                    show.write(piece.reasoning, is_reasoning=True)
                    show.write(piece.text)
        except KeyboardInterrupt:
            show.end("stopped")
        else:
            assert answer is not None  # the last piece has it
            show.end(_told(answer, time.perf_counter() - start_s))
        if said:
            self.turns += [asked, {"role": "assistant", "content": said}]
        if "seed" in self.settings:
            self.settings["seed"] += 1


@dataclass(slots=True)
class Screen:
    """Where an answer is shown: on a terminal its reasoning is dimmed, else that goes to stderr."""

    is_reasoning: bool = False

    def write(self, text: str, *, is_reasoning: bool = False) -> None:
        """Show a piece; a line of its own divides reasoning and answer."""
        if not text:
            return
        is_terminal = sys.stdout.isatty()
        if is_terminal:  # which what a model writes must not steer
            text = CONTROLS.sub("", text)
        if self.is_reasoning and not is_reasoning:
            click.echo("\n" if is_terminal else "", err=not is_terminal)
        self.is_reasoning = is_reasoning
        if is_reasoning:
            click.echo(click.style(text, dim=is_terminal), nl=False, err=not is_terminal)
        else:
            click.echo(text, nl=False)

    def end(self, note: str) -> None:
        """End the line, and on a terminal say something of the answer."""
        click.echo(err=self.is_reasoning and not sys.stdout.isatty())
        if sys.stdout.isatty():
            click.echo(click.style(f"[{note}]", dim=True), err=True)


def _told(answer: "Answer", seconds: float) -> str:
    """Return what is said of a whole answer."""
    told = f"{len(answer.tokens)} tokens in {seconds:.1f} s"
    if answer.cached_tokens:
        told += f"; {answer.cached_tokens} of the prompt's {answer.num_prompt_tokens} kept"
    return told if answer.finish_reason == "stop" else f"{told}; ended by {answer.finish_reason}"


def messages(read: Callable[[], str]) -> Iterator[str]:
    """Yield messages: a line each, or all between two lines of quotes; `read` gives "" at the end.

    Raises:
        ConfigError: the end comes within quotes.
    """
    while line := read():
        text = line.removesuffix("\n")
        if text.strip() != QUOTES:
            yield text
            continue
        within: list[str] = []
        while (line := read()) and line.strip() != QUOTES:
            within.append(line.removesuffix("\n"))
        if not line:
            raise ConfigError(f"the input ends within {QUOTES}.")
        yield "\n".join(within)


def _talk(session: Session) -> None:
    """Read messages from the terminal until its end; a fault ends a turn, not the session."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def begin_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    line: PromptSession[str] = PromptSession(
        multiline=True, key_bindings=keys, prompt_continuation="  ", reserve_space_for_menu=0
    )

    def read() -> str:
        while True:
            try:
                return line.prompt("> ") + "\n"
            except KeyboardInterrupt:
                click.echo("Ctrl-D or /exit ends.", err=True)
            except EOFError:
                return ""

    for text in messages(read):
        try:
            if not session.take(text):
                return
        except NemotrtError as error:
            error.show()
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
