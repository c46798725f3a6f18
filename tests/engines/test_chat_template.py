"""Chat templates render as transformers renders them, whatever of its environment they use."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from transformers import AutoTokenizer

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.text.chat.template import ChatTemplate, load_chat_template
from nemotrt.engines.text.tokenizer_config import read_tokenizer_config, special_tokens
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ConfigError
from support.chats import BARE_TOOL, CHATS, TOOLS
from support.llama_source import llama_templates

FOLDER = TINY_MODELS["tiny"]
REFERENCE = AutoTokenizer.from_pretrained(FOLDER)
TOKENS = special_tokens(read_tokenizer_config(FOLDER))
SENTENCE = {"role": "user", "content": "Zoë said: 'a < b' & \"c\"\u2028"}
FEATURES = {
    "special tokens": "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}|{{ pad_token }}",
    "tokens that are not there": "{{ cls_token is defined }}{{ image_token }}",
    "tojson": "{{ messages | tojson }}",
    "tojson in ASCII": "{{ messages | tojson(ensure_ascii=true) }}",
    "tojson by place": "{{ messages | tojson(true, 2) }}",
    "tojson, sorted": '{{ {"b": 1, "a": "é"} | tojson(sort_keys=true) }}',
    "tojson, compact": "{{ tools | tojson(separators=(',', ':')) }}",
    "tojson, indented": "{{ tools | tojson(indent=4) }}",
    "tojson, tab": "{{ messages | tojson(indent='\\t') }}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{{ loop.index }}"
    "{% endgeneration %}{% endfor %}",
    "scope of generation": "{% set x = 1 %}{%- generation -%}{% set x = 2 %} {{ x }} "
    "{%- endgeneration -%}{{ x }}",
    "trimmed blocks": "  {% if true %}\n  a\n  {% endif %}\nb\n",
    "loop controls": "{% for m in range(9) %}{% if m == 2 %}{% continue %}{% endif %}"
    "{% if m == 5 %}{% break %}{% endif %}{{ m }}{% endfor %}",
    "date": "{{ strftime_now('%Y-%m-%d') }}",
    "raise": "{{ raise_exception('roles must alternate') }}",
    "dict": "{{ dict(a=1) }}{{ dict.fromkeys(['a', 'b'], 2) }}{{ dict({'a': 1}, b=2) }}",
    "namespace": "{% set n = namespace({'a': 1}, b=2) %}{% set n.c = 3 %}{{ n.a + n.b + n.c }}",
    "namespace self": "{% set n = namespace(self=1) %}{{ n.self }}",
    "namespace underscore": "{% set n = namespace() %}{% set n._x = 1 %}",
    "filters": "{{ messages[0].content | trim | upper | replace('A', 'o') | length }}",
    "macros": "{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(messages[0].role) }}",
    "no tools": "{{ tools is none }}{{ documents is none }}{{ tools is defined }}",
    "generation prompt": "{{ add_generation_prompt }}{{ continue_final_message is defined }}",
    "absent content": "{% for m in messages %}{{ m.content is defined }}{{ m.name is none }}"
    "{{ m.get('content') }}{% endfor %}",
    "reasoning": "{% for m in messages %}{{ m.reasoning_content }}{{ m.thinking }}{% endfor %}",
    "state": "{{ messages.append(1) }}",
    "internals": "{{ cycler.__init__.__globals__ }}",
}


def reference(source: str | None, messages: Any, **options: Any) -> tuple[str, str]:
    """What transformers makes of a chat, and its reason where it refuses."""
    try:
        text = REFERENCE.apply_chat_template(
            messages, chat_template=source, tokenize=False, add_generation_prompt=True, **options
        )
    except Exception as error:
        return "", str(error) or type(error).__name__
    return text, ""


def ours(template: ChatTemplate, messages: Any, **options: Any) -> tuple[str, str]:
    try:
        return template.render(messages, **options), ""
    except ConfigError as error:
        return "", error.message


def differences(source: str) -> list[str]:
    """Return the chats of which our text is another one than transformers'."""
    template, found = ChatTemplate(source, TOKENS), []
    for name, messages in CHATS.items():
        for tools in (None, TOOLS, [BARE_TOOL]):
            (text, refusal), (expected, reason) = (
                ours(template, messages, tools=tools),
                reference(source, messages, tools=tools),
            )
            is_filled = reason and not all(m.get("content") is not None for m in messages)
            if not is_filled and (text != expected or bool(refusal) != bool(reason)):
                found.append(f"{name}, {len(tools or ())} tools: {reason or refusal}")
    return found


@pytest.mark.parametrize("feature", FEATURES)
def test_the_environment_is_that_of_transformers(feature) -> None:
    source = FEATURES[feature]
    assert not differences(source)
    messages = [SENTENCE, {"role": "assistant", "content": None}]
    template = ChatTemplate(source, TOKENS)
    (text, refusal), (expected, reason) = ours(template, messages), reference(source, messages)
    assert text == expected and bool(refusal) == bool(reason)


def test_a_refusal_has_the_words_of_the_template() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(ConfigError, match="refuses the messages: roles must alternate"):
        template.render([SENTENCE])


@pytest.mark.slow
def test_every_template_of_a_registry_package_renders_as_in_transformers() -> None:
    """llama.cpp's source package has templates of dozens of models."""
    paths = llama_templates()
    assert len(paths) > 50
    found = {path.name: differences(path.read_text(encoding="utf-8")) for path in paths}
    assert {name: cases for name, cases in found.items() if cases} == {}


def changed_folder(target: Path, **entries: Any) -> Path:
    """Return a copy of the shipped tokenizer with other entries in its configuration."""
    copytree(FOLDER, target, ignore=lambda *_: ["model.safetensors", "chat_template.jinja"])
    path = target / "tokenizer_config.json"
    config = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({name: value for name, value in config.items() if value != "-"}))
    return target


def files(**sources: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "additional_chat_templates").mkdir()
        for name, source in sources.items():
            where = "chat_template" if name == "default" else f"additional_chat_templates/{name}"
            (folder / f"{where}.jinja").write_text(source)

    return write


NAMED = [
    {"name": "default", "template": "plain {{ messages[0].content }}{{ bos_token }}"},
    {"name": "tool_use", "template": "tools {{ tools | length }} {{ eos_token }}"},
    {"name": "rag", "template": "documents {{ documents | length }}"},
]


@pytest.mark.parametrize(
    ("entries", "write"),
    [
        ({"chat_template": "one {{ messages[0].content }}"}, None),
        ({"chat_template": NAMED}, None),
        ({"chat_template": NAMED[1:]}, None),
        ({"chat_template": "config's"}, files(default="file's")),
        ({}, files(default="file's", tool_use="for tools")),
        ({"chat_template": "config's"}, files(tool_use="for tools")),
        (
            {
                "chat_template": "{{ bos_token }}{{ image_token }}{{ add_bos_token }}{{ x_token }}",
                "bos_token": {
                    "__type": "AddedToken",
                    "content": "</s>",
                    "lstrip": False,
                    "normalized": False,
                    "rstrip": False,
                    "single_word": False,
                },
                "image_token": "<SPECIAL_20>",
                "add_bos_token": True,
                "extra_special_tokens": {"x_token": "<SPECIAL_21>"},
            },
            None,
        ),
        (
            {"chat_template": "{{ bos_token }}{{ eos_token }}", "added_tokens_decoder": "-"}
            | {"bos_token": "-", "eos_token": "-"},
            None,
        ),
        ({"chat_template": "{{ bos_token }}|{{ eos_token }}", "bos_token": None}, None),
    ],
)
def test_folders_are_read_as_transformers_reads_them(tmp_path, entries, write) -> None:
    folder = changed_folder(tmp_path / "model", **entries)
    if write is not None:
        write(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    template = load_chat_template(folder)
    assert template is not None
    for tools in (None, TOOLS):
        try:
            expected = theirs.apply_chat_template([SENTENCE], tools=tools, tokenize=False)
        except ValueError as error:
            assert "no default" in str(error)
            with pytest.raises(ConfigError, match="no default chat template"):
                template.render([SENTENCE], tools=tools)
        else:
            assert template.render([SENTENCE], tools=tools, add_generation_prompt=False) == expected


def test_an_engine_folder_has_all_templates(tmp_path) -> None:
    source = tmp_path / "model"
    copytree(FOLDER, source)
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates/tool_use.jinja").write_text("for tools")
    limits = Limits(max_batch_size=1, max_seq_len=64, chunk_tokens=16)
    build_engine(source, tmp_path / "engine", BuildSpec(limits=limits))
    template = load_chat_template(tmp_path / "engine")
    assert template is not None and template.render([SENTENCE], tools=TOOLS) == "for tools"


@pytest.mark.parametrize(
    "held", [[1], [{"name": "default"}], [{"name": 1, "template": ""}], [["default", "x"]]]
)
def test_a_malformed_list_of_templates_is_an_error(tmp_path, held) -> None:
    folder = changed_folder(tmp_path / "model", chat_template=held)
    with pytest.raises(ArtefactError, match="chat_template must be a text or a list"):
        load_chat_template(folder)


def test_the_variables_are_what_a_client_can_set() -> None:
    template = ChatTemplate(
        "{{ bos_token }}{% if x is not defined %}{% set x = y %}{% endif %}", TOKENS
    )
    assert template.variables == {"x", "y"}
    assert ChatTemplate("{{ strftime_now('%Y') }}{{ messages }}").variables == {"messages"}
