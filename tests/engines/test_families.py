"""The families' chat formats: who is which, and that no other file knows a tag."""

import json
import pickle
import shutil
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from nemotrt.engines.model import families
from nemotrt.engines.model.families import (
    DEFAULT,
    FAMILIES,
    NEMOTRON_3,
    NEMOTRON_NANO_2,
    QWEN3,
    XmlCall,
    family_of,
)
from nemotrt.engines.runtime.sampling.guide import Forced
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.sampling.thinking_budget import ThinkingBudget
from nemotrt.engines.text.chat.template import ChatTemplate, load_chat_template
from nemotrt.engines.text.chat.turn import read_turn
from nemotrt.engines.text.reasoning import Trace, TraceReader
from nemotrt.engines.text.tag_tokens import tag_tokens
from nemotrt.engines.text.tokenizer import Tokenizer, load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from support.call_forms import written
from support.foreign_family import (
    EVERY_FAMILY,
    FOREIGN,
    FOREIGN_TEMPLATE,
    NEMOTRON_3_TEMPLATE,
    QWEN3_TEMPLATE,
)

ROOT = Path(families.__file__).resolve().parents[2]
FOLDER = TINY_MODELS["tiny"]
USER = [{"role": "user", "content": "Hi"}]
# What tells a user of tags: a help text.
SAY_TAGS = {
    "chat.py",
    "engines/command.py",
    "serve/processes/options.py",
}
OWN = {"engines/model/families.py"}


@pytest.fixture
def with_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", EVERY_FAMILY)


def test_no_other_file_spells_a_tag() -> None:
    """But for the tiny model's template, which is a checkpoint's file and no product's."""
    tags = {tag for family in FAMILIES for tag in (*family.think, *family.calls.tags)}
    forms = [family.calls.call for family in FAMILIES]
    elements = [form for form in forms if isinstance(form, XmlCall)]
    tags |= {tag for form in elements for tag in (*form.function, *form.parameter)}
    tags |= {word for family in FAMILIES for word in family.directives.values()}
    rooms = ("build", "charts", "cli", "engines", "files", "profiles", "quantize", "serve", "wire")
    paths = [*ROOT.glob("*.py"), *(path for room in rooms for path in (ROOT / room).rglob("*.*"))]
    found = {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if path.suffix in {".py", ".html", ".js", ".cpp", ".h", ".cu", ".yaml"}
        and any(tag in path.read_text(encoding="utf-8") for tag in tags)
    }
    assert found - SAY_TAGS == OWN
    assert found >= SAY_TAGS  # an exception that is none any more goes


@pytest.mark.parametrize(
    ("templates", "family"),
    [
        ([QWEN3_TEMPLATE], QWEN3),
        (["{{ messages }}", QWEN3_TEMPLATE], QWEN3),
        ([load_chat_template(FOLDER)._sources["default"]], NEMOTRON_NANO_2),
        ([NEMOTRON_3_TEMPLATE], NEMOTRON_3),
        (["<tool_call>\n<function=f>\n<parameter=x>1</parameter></function>"], NEMOTRON_3),
        (['<tool_call>\n{"name": "f"} or <function=f>\n<parameter=x>'], NEMOTRON_3),
        (["<tool_call>\n<function=f>{}</function></tool_call>"], DEFAULT),
        (["<function=f>\n<parameter=x>1</parameter></function>"], DEFAULT),
        (["{{ messages }}"], DEFAULT),
        ([], DEFAULT),
    ],
)
def test_the_family_is_told_by_how_a_template_writes_calls(templates, family) -> None:
    assert family_of(templates) is family


def test_every_family_is_found_by_its_own_calls(with_foreign: None) -> None:
    for family in EVERY_FAMILY:
        assert family_of([written(family, [("f", {"x": 1})])]) is family


PLACES = {
    "a file": {"chat_template.jinja": QWEN3_TEMPLATE},
    "a second file": {
        "chat_template.jinja": "{{ messages }}",
        "additional_chat_templates/other.jinja": QWEN3_TEMPLATE,
    },
    "the configuration": {"chat_template": QWEN3_TEMPLATE},
    "one of several": {
        "chat_template": [
            {"name": "default", "template": "{{ messages }}"},
            {"name": "tool_use", "template": QWEN3_TEMPLATE},
        ]
    },
}


@pytest.mark.parametrize("place", PLACES)
def test_tokenizer_and_template_of_a_folder_agree(place: str, tmp_path: Path) -> None:
    config = json.loads((FOLDER / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    shutil.copyfile(FOLDER / "tokenizer.json", tmp_path / "tokenizer.json")
    for name, held in PLACES[place].items():
        if name == "chat_template":
            config[name] = held
        else:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(held)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer, template = load_tokenizer(tmp_path), load_chat_template(tmp_path)
    assert tokenizer is not None and template is not None
    assert tokenizer.chat is template.chat is QWEN3


@settings(deadline=None)
@given(
    st.sampled_from(EVERY_FAMILY),
    st.text("a<|/\n ", max_size=12),
    st.text("a<>\n ", max_size=12),
    st.booleans(),
    st.lists(st.integers(0, 60)),
)
def test_a_familys_traces_are_read(family, trace, answer, opens, positions) -> None:
    """The oracle is how the text was put together."""
    answer = answer.lstrip("\n")
    text = f"{family.think.open * opens}{trace}{family.think.close}{family.gap}{answer}"
    reader = TraceReader(family, Trace.BEFORE if opens else Trace.OPEN)
    places = sorted({0, len(text), *(p % (len(text) + 1) for p in positions)})
    parts = []
    for a, b in pairwise(places):
        reader = pickle.loads(pickle.dumps(reader))  # answers change their process
        parts.append(reader.push(text[a:b]))
    parts.append(reader.flush())
    assert "".join(part.reasoning for part in parts) == trace.strip("\n")
    assert "".join(part.content for part in parts) == answer


def test_a_familys_prompt_is_read(with_foreign: None) -> None:
    template = ChatTemplate(FOREIGN_TEMPLATE)
    turn = read_turn(template.render(USER), template)
    assert turn.chat is FOREIGN
    assert (turn.trace, turn.expects_trace, turn.is_at_newline) == (Trace.OPEN, True, True)
    told = template.render([{"role": "user", "content": "[plain] <think>"}])
    turn = read_turn(told, template)
    assert (turn.trace, turn.expects_trace) == (Trace.ENDED, False)


def test_a_familys_trace_is_closed_by_its_own_tag() -> None:
    for family in EVERY_FAMILY:
        guide = ThinkingBudget(family, 0, partial(map, ord), Trace.OPEN)
        written = ""
        while isinstance(rule := guide.rule(), Forced):
            guide.push(rule.token, chr(rule.token))
            written += chr(rule.token)
        assert written == family.think.close + family.gap and guide.trace is Trace.CLOSED


@pytest.mark.parametrize("family", EVERY_FAMILY)
@pytest.mark.parametrize("is_special", [True, False])
def test_a_familys_tags_are_text_even_as_special_tokens(family, is_special) -> None:
    """Else the reader of a trace or of calls would never see them."""
    backend = Backend.from_file(str(FOLDER / "tokenizer.json"))
    tags = (*family.think, *family.calls.tags)
    backend.add_tokens([AddedToken(t, special=is_special, normalized=False) for t in tags])
    tokenizer = Tokenizer(backend, chat=family)
    text = f"{tags[0]}\nhm{tags[1]}{family.gap}{tags[2]}yes{tags[3]}"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert {tokenizer.token_id(tag) for tag in tags} <= set(ids)
    assert "".join(map(tokenizer.decoder(), ids)) == text
    opening = tag_tokens(tokenizer, tokenizer.vocab_size)
    assert [text for _, text in opening.opening] == [family.think.open]
    assert opening.opening_after("") == [tokenizer.token_id(family.think.open)]
    assert opening.opening_after("a") == []


def test_a_tag_of_several_tokens_is_allowed_token_by_token() -> None:
    backend = Backend.from_file(str(FOLDER / "tokenizer.json"))
    for family in EVERY_FAMILY:
        tokenizer = Tokenizer(backend, chat=family)
        tags, written = tag_tokens(tokenizer, tokenizer.vocab_size), ""
        for token in tokenizer.encode(family.think.open + "\n", add_special_tokens=False):
            assert token in tags.opening_after(written)
            written += tokenizer.decode([token])
        assert [len(text) for _, text in tags.newlines] == list(range(1, len(family.gap) + 1))


@pytest.mark.parametrize("family", EVERY_FAMILY)
@pytest.mark.parametrize("reasons", [True, False])
@pytest.mark.parametrize("has_tools", [True, False])
def test_the_cards_settings_are_the_samplers(family, reasons, has_tools) -> None:
    settings = family.settings(reasons=reasons, has_tools=has_tools)
    assert SamplingParams(max_tokens=1, **settings).temperature <= 1
    own = has_tools and family.tool_sampling
    assert settings == (own or family.sampling[reasons])


@pytest.mark.parametrize(
    ("told", "sampled"),
    [
        ({}, {"temperature": 0.6, "top_p": 0.95}),
        ({"temperature": 0.3}, {"temperature": 0.6, "top_p": 0.95}),  # it would not sample
        ({"do_sample": True, "top_k": 0}, {"temperature": 0.6, "top_p": 0.95}),
        ({"do_sample": True, "temperature": 1.0}, {"temperature": 1.0, "top_p": 0.95}),
        (
            {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 20},
            {"temperature": 0.7, "top_p": 0.9, "top_k": 20},
        ),
    ],
)
def test_a_checkpoint_s_own_sampling_goes_before_the_card_s(
    told: dict[str, object], sampled: dict[str, float], tmp_path: Path
) -> None:
    """generation_config.json decides thinking answers; the others stay greedy."""
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        shutil.copy(TINY_MODELS["tiny"] / name, tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps(told))
    template = load_chat_template(tmp_path)
    assert template is not None
    assert template.chat.settings(reasons=True, has_tools=False) == sampled
    assert template.chat.settings(reasons=False, has_tools=False)["temperature"] == 0
