"""`nemotrt chat`: line by line, and in a real pseudo-terminal."""

import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from nemotrt import chat
from nemotrt.cli import main
from nemotrt.errors import ConfigError
from nemotrt.llm import LLM

TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def llm(tiny_engine: Path) -> Iterator[LLM]:
    with LLM(tiny_engine) as opened:
        yield opened


def talk(engine: Path, text: str, *words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["chat", str(engine), *words], input=text)
    assert result.exit_code == code, result.output
    return result


def test_each_line_is_answered_with_what_was_said_before(tiny_engine: Path, llm: LLM) -> None:
    said = ["What is a file?", "日本語で。"]
    result = talk(tiny_engine, "\n".join(said), "--no-think", "--max-tokens", "16")
    turns: list[dict[str, str]] = []
    answers = []
    for text in said:
        turns.append({"role": "user", "content": text})
        params = llm.settings(turns, thinking=False, max_tokens=16)
        answers.append(llm.chat(turns, params, thinking=False).text)
        turns.append({"role": "assistant", "content": answers[-1]})
    assert result.stdout == "".join(f"{answer}\n" for answer in answers)
    assert result.stderr == ""


def test_words_change_the_session(llm: LLM) -> None:
    session = chat.Session(llm, settings={"max_tokens": 4, "seed": 5})
    lines = ["/system Be short.", "/no_think", "/budget 7", "  ", "", "Hi", "/think"]
    assert all([session.take(line) for line in lines])
    assert (session.system, session.thinking, session.budget) == ("Be short.", True, 7)
    assert [turn["role"] for turn in session.turns] == ["user", "assistant"]
    assert session.settings["seed"] == 6
    for line in ("/system", "/budget", "/reset", "/help"):
        assert session.take(line)
    assert (session.system, session.budget, session.turns) == (None, None, [])
    assert not session.take("/exit")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/thnk", "did you mean '/think'?"),
        ("/reset now", "/reset stands alone"),
        ("/budget -1", "/budget takes a number"),
        ("/budget ٣", "/budget takes a number"),
        ("word " * 600, "the engine holds 512"),
    ],
)
def test_a_fault_leaves_no_trace(llm: LLM, line: str, message: str) -> None:
    session = chat.Session(llm)
    with pytest.raises(ConfigError, match=re.escape(message)):
        session.take(line)
    assert session.turns == [] and session == chat.Session(llm)


def test_a_path_is_a_message(llm: LLM) -> None:
    session = chat.Session(llm, settings={"max_tokens": 2}, thinking=False)
    assert session.take("/usr/bin is what?")
    assert session.turns[0]["content"] == "/usr/bin is what?"


def test_without_a_terminal_the_first_fault_ends_it(tiny_engine: Path) -> None:
    assert "unknown word" in talk(tiny_engine, "/thnk\nHi\n", code=2).stderr
    assert "ends within" in talk(tiny_engine, '"""\nHi\n', code=2).stderr
    assert talk(tiny_engine, "").output == ""


def test_reasoning_goes_to_stderr_and_a_budget_ends_it(tiny_engine: Path, llm: LLM) -> None:
    words = ("--think", "--temperature", "0", "--max-tokens", "48")
    result = talk(tiny_engine, "What is a file?\n", *words)
    turns = [{"role": "user", "content": "What is a file?"}]
    params = llm.settings(turns, thinking=True, temperature=0.0, max_tokens=48)
    whole = llm.chat(turns, params, thinking=True)
    assert whole.reasoning and whole.reasoning in result.stderr
    assert whole.reasoning not in result.stdout and result.stdout.strip() == whole.text
    short = llm.chat(turns, params, thinking=True, max_thinking_tokens=0)
    assert len(short.reasoning) < len(whole.reasoning)
    result = talk(tiny_engine, "/budget 0\nWhat is a file?\n", *words)
    assert result.stdout.strip() == short.text


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=9)))
def test_messages_are_lines_or_what_stands_between_quotes(lines: list[str]) -> None:
    lines = [line for line in lines if line.strip() != chat.QUOTES]
    found = list(chat.messages(iter([f"{line}\n" for line in lines] + [""]).__next__))
    assert found == lines
    quoted = [f"{chat.QUOTES}\n", *(f"{line}\n" for line in lines), f" {chat.QUOTES}\n", ""]
    assert list(chat.messages(iter(quoted).__next__)) == ["\n".join(lines)]


def test_ctrl_c_stops_an_answer_and_the_next_one_is_as_ever(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real signal, at each place of an answer: what was said is kept, and the engine goes on."""
    question = {"role": "user", "content": "What is a file?"}
    params = llm.settings([question], thinking=False, max_tokens=24)
    whole = llm.chat([question], params, thinking=False).text
    for place in range(1, 8):
        shown: list[str] = []

        def echo(text: str = "", place: int = place, shown: list[str] = shown, **_: object) -> None:
            shown.append(text)
            if len(shown) == place:
                os.kill(os.getpid(), signal.SIGINT)

        session = chat.Session(llm, settings={"max_tokens": 24}, thinking=False)
        monkeypatch.setattr(click, "echo", echo)
        assert session.take(question["content"])
        monkeypatch.undo()
        [asked, answered] = session.turns
        assert asked == question and answered["content"] == "".join(shown[:place])
        assert whole.startswith(answered["content"]) and len(answered["content"]) < len(whole)
    assert llm.chat([question], params, thinking=False).text == whole


class Terminal:
    """A program in a pseudo-terminal."""

    def __init__(self, *words: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ["TERM"] = "xterm-256color"
            os.execv(sys.executable, [sys.executable, "-m", "nemotrt", *words])
        self.seen = b""

    def until(self, mark: str) -> str:
        """Return what is shown up to a text."""
        end, wanted = time.monotonic() + TIMEOUT_S, mark.encode()
        while wanted not in self.seen and time.monotonic() < end:
            if select.select([self.fd], [], [], 1)[0]:
                data = os.read(self.fd, 1 << 16)
                self.seen += data
                if b"\x1b[6n" in data:  # where is the cursor?
                    os.write(self.fd, b"\x1b[1;1R")
        found, mark_found, self.seen = self.seen.partition(wanted)
        assert mark_found, (mark, found)
        return found.decode(errors="replace")

    def send(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self) -> int:
        """Return the exit code, once the program has ended."""
        while True:
            try:
                if not os.read(self.fd, 1 << 16):
                    break
            except OSError:
                break
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that it forks
def test_a_session_in_a_terminal(tiny_engine: Path) -> None:
    """Several lines of Japanese, reasoning dimmed, Ctrl-C at an answer and at the prompt."""
    prompt = "\x1b[0m>"
    terminal = Terminal("chat", str(tiny_engine), "--max-tokens", "400", "--temperature", "0")
    assert "/help" in terminal.until(prompt)
    terminal.send("日本語の\x1b\r質問")
    terminal.until("質問")
    terminal.send("\r")
    terminal.until("\x1b[2m")  # reasoning, dimmed
    terminal.send("\x03")
    terminal.until("[stopped]")
    terminal.until(prompt)
    terminal.send("\x03")
    terminal.until("Ctrl-D or /exit ends")
    terminal.until(prompt)
    terminal.send("/thnk\r")
    terminal.until("did you mean '/think'?")
    terminal.until(prompt)
    terminal.send("/no_think\r")
    terminal.until(prompt)
    terminal.send("What is a file?\r")
    terminal.until(" tokens in ")
    terminal.until(prompt)
    terminal.send("\x04")
    assert terminal.end() == 0
