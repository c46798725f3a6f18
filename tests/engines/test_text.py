"""Tokenizer, chat template and streamed text, with the shipped tokenizer and transformers' view."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.text.chat.template import ChatTemplate, load_chat_template
from nemotrt.engines.text.chat.turn import read_turn
from nemotrt.engines.text.text_stream import TextStream
from nemotrt.engines.text.tokenizer import Tokenizer, load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ConfigError

FOLDER = TINY_MODELS["tiny"]
TOKENIZER = load_tokenizer(FOLDER)
assert TOKENIZER is not None
TEMPLATE = load_chat_template(FOLDER)
assert TEMPLATE is not None
REFERENCE = AutoTokenizer.from_pretrained(FOLDER)
TOOLS = [
    {
        "type": "function",
        "function": {"name": "calculate_tip", "parameters": {"type": "object", "日本": "é<>"}},
    }
]
CALL = {"function": {"name": "calculate_tip", "arguments": {"bill_total": 100}}}
CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be brief. /no_think"}, {"role": "user", "content": "やあ"}],
    [{"role": "user", "content": "Hi /no_think"}],
    [{"role": "system", "content": "/think"}, {"role": "user", "content": "2+2? "}],
    [
        {"role": "user", "content": "tip?"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\nok", "tool_calls": [CALL]},
        {"role": "tool", "content": "18"},
        {"role": "tool", "content": "19"},
        {"role": "user", "content": "thanks"},
    ],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c"}],
]


@given(st.text())
def test_round_trip_and_transformers_ids(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert ids == REFERENCE.encode(text)
    plain = TOKENIZER.encode(text, add_special_tokens=False)
    if not any(name in text for name in ("<s>", "</s>", "<unk>", "<SPECIAL_")):
        assert TOKENIZER.decode(plain) == text


@pytest.mark.parametrize("messages", CHATS)
@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_chat_template_renders_as_transformers(
    messages: list[dict[str, Any]], tools: Any, add_generation_prompt: bool
) -> None:
    expected = REFERENCE.apply_chat_template(
        messages, tools=tools, tokenize=False, add_generation_prompt=add_generation_prompt
    )
    found = TEMPLATE.render(messages, tools=tools, add_generation_prompt=add_generation_prompt)
    assert found == expected


@pytest.mark.parametrize(
    ("messages", "reasons"), list(zip(CHATS[:4], [True, False, False, True], strict=True))
)
def test_reasoning_and_its_defaults(messages: list[dict[str, Any]], reasons: bool) -> None:
    prompt = TEMPLATE.render(messages)
    turn = read_turn(prompt, TEMPLATE)
    assert turn.expects_trace is reasons
    assert turn.chat.sampling[turn.expects_trace] == (
        {"temperature": 0.6, "top_p": 0.95} if reasons else {"temperature": 0.0, "top_p": 1.0}
    )
    assert prompt.endswith("<think>\n" if reasons else "<think></think>")


def test_template_from_tokenizer_config(tmp_path: Path) -> None:
    assert load_chat_template(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(
        '{"chat_template": "{{ messages[0].content }}"}'
    )
    template = load_chat_template(tmp_path)
    assert template is not None and template.render([{"role": "user", "content": "x"}]) == "x"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% for i in range(999999999) %}{% endfor %}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception('no') }}",
    ],
)
def test_hostile_templates_are_refused(source: str) -> None:
    with pytest.raises(ConfigError, match="refuses"):
        ChatTemplate(source).render([{"role": "user", "content": "x"}])


def test_bad_templates_and_messages() -> None:
    with pytest.raises(ArtefactError, match="malformed"):
        ChatTemplate("{% if %}")
    with pytest.raises(ConfigError, match="at least one"):
        TEMPLATE.render([])
    with pytest.raises(ConfigError, match="role"):
        TEMPLATE.render([{"content": "x"}])


def test_folders_without_or_with_broken_tokenizer(tmp_path: Path) -> None:
    assert load_tokenizer(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtefactError, match="is not a tokenizer"):
        load_tokenizer(tmp_path)


def test_special_ids() -> None:
    assert set(TOKENIZER.eos_ids) == {2, 11, 12}  # generation_config.json's
    assert TOKENIZER.encode("<SPECIAL_11>", add_special_tokens=False) == [11]


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.data())
def test_streamed_text_is_whole_characters(text: str, data: st.DataObject) -> None:
    """However the tokens split characters, every piece is valid and the sum is the text."""
    raw = [i for b in text.encode() for i in byte_ids(b)] if data.draw(st.booleans()) else None
    ids = raw or TOKENIZER.encode(text, add_special_tokens=False)
    if any(i < 32 for i in ids):
        return
    stream = TextStream(TOKENIZER)
    pieces = [stream.push(i)[1] for i in ids]
    assert all("\ufffd" not in piece or "\ufffd" in text for piece in pieces)
    assert "".join(pieces) + stream.flush() == text


def byte_ids(byte: int) -> list[int]:
    """Return the single-byte token of the byte-level vocabulary."""
    from tokenizers.pre_tokenizers import ByteLevel

    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    letter = chr(byte) if byte in printable else chr(256 + others.index(byte))
    assert letter in ByteLevel.alphabet()
    token = TOKENIZER._backend.token_to_id(letter)
    assert token is not None
    return [token]


class Pieces(Tokenizer):
    """A tokenizer whose ids are characters, to try stop strings on any text."""

    chat = DEFAULT

    def __init__(self) -> None:
        self.eos_ids = ()

    def decoder(self, **how: bool) -> Any:
        return chr


@given(st.text("abX", max_size=30), st.lists(st.text("abX", min_size=1, max_size=4), max_size=3))
def test_stop_strings_are_cut_at_their_first_place(text: str, stop: list[str]) -> None:
    stream = TextStream(Pieces(), tuple(stop))
    shown = ""
    for letter in text:
        shown += stream.push(ord(letter))[1]
        if stream.is_stopped:
            break
    shown += stream.flush()
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    # the stop string that is complete first ends the text; of several, the earliest start
    if not ends:
        assert shown == text and not stream.is_stopped
    else:
        first = min(end for end, _ in ends)
        assert shown == text[: min(start for end, start in ends if end == first)]
        assert stream.is_stopped


@example(".ab", ["a", ".ab"])
@given(st.text("ab. ", max_size=40), st.lists(st.text("ab. ", min_size=1, max_size=3), min_size=1))
def test_a_stop_string_is_shown_where_that_is_asked_for(text: str, stops: list[str]) -> None:
    ends = [(text.find(stop), stop) for stop in stops if stop in text]
    shown, plain = (TextStream(TOKENIZER, tuple(stops), show_stop=show) for show in (True, False))
    found = {True: "", False: ""}
    for show, stream in ((True, shown), (False, plain)):
        for token in TOKENIZER.encode(text, add_special_tokens=False):
            found[show] += stream.push(token)[1]
            if stream.is_stopped:
                break
        found[show] += stream.flush()
    if not ends:
        assert found[True] == found[False] == text
        return
    assert shown.is_stopped and plain.is_stopped
    tail = found[True].removeprefix(found[False])
    assert text.startswith(found[True]) and tail in stops
    # of those that one token completes, the one that begins first ends the text
    assert not any(stop in found[False] for stop in stops)


@pytest.mark.parametrize("skip", [True, False])
def test_special_tokens_are_shown_where_that_is_asked_for(skip: bool) -> None:
    ids = REFERENCE.encode("<SPECIAL_10>System<SPECIAL_12>\nやあ</s>", add_special_tokens=False)
    stream = TextStream(TOKENIZER, skip_special_tokens=skip)
    found = "".join(stream.push(token)[1] for token in ids)
    assert found == REFERENCE.decode(ids, skip_special_tokens=skip)
    assert ("<SPECIAL_10>" in found) is not skip
