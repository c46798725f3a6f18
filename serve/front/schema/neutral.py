"""Values of fields that this server does not have, which ask for what it does anyway.

Clients send them because they serialize defaults. They change nothing, so they are taken. Any
other value of such a field is refused by name. A null says that a field is not given, and is taken
for every field.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

Json = dict[str, Any]


class Neutral(NamedTuple):
    """The values that change nothing, and why."""

    values: tuple[Any, ...]
    why: str
    same_as: str | None = None  # a field whose own value is neutral too


Table = Mapping[str, Neutral]

EITHER: Table = {
    "best_of": Neutral((1,), "each choice is returned", same_as="n"),
    "use_beam_search": Neutral((False,), "there is no beam search"),
    "length_penalty": Neutral((1,), "there is no beam search"),
    "bad_words": Neutral(([],), "empty is off"),
    "skip_special_tokens": Neutral((True,), "special tokens are not in the text"),
    "spaces_between_special_tokens": Neutral((True,), "special tokens are not in the text"),
    "include_stop_str_in_output": Neutral((False,), "stop strings are not in the text"),
    "return_token_ids": Neutral((False,), "token ids are not returned"),
    "return_tokens_as_token_ids": Neutral((False,), "tokens are returned as text"),
    "store": Neutral((False,), "nothing is stored"),
    "service_tier": Neutral(("auto", "default"), "there is one tier"),
}
CHAT: Table = {
    **EITHER,
    "add_generation_prompt": Neutral((True,), "the answer is a new turn"),
    "add_special_tokens": Neutral((False,), "the chat template writes them"),
    "continue_final_message": Neutral((False,), "the answer is a new turn"),
    "documents": Neutral(([],), "empty is none"),
    "echo": Neutral((False,), "the prompt is not in the answer"),
    "function_call": Neutral(("none", "auto"), "there are no functions, only tools"),
    "functions": Neutral(([],), "empty is none"),
    "modalities": Neutral((["text"],), "answers are text"),
    "verbosity": Neutral(("medium",), "the default"),
}
COMPLETION: Table = {**EITHER, "suffix": Neutral(("",), "empty is none")}
# Of a message: what an answer of the OpenAI SDK, of litellm or of vLLM has when it is handed back.
MESSAGE: Table = {
    "annotations": Neutral(([],), "empty is none"),
    "audio": Neutral(({},), "empty is none"),
    "function_call": Neutral(({},), "empty is none"),
    "refusal": Neutral(("",), "empty is none"),
}
STREAM_OPTIONS: Table = {"include_obfuscation": Neutral((False,), "nothing is padded")}


def without_neutral(body: Json, table: Table) -> Json:
    """Return the fields of a body that say something."""
    return {
        name: value
        for name, value in body.items()
        if value is not None and not _is_neutral(table.get(name), value, body)
    }


def describe(schema: Json, table: Table) -> None:
    """Add to a JSON schema what is taken beside its own fields."""
    properties = schema.setdefault("properties", {})
    for name, value in properties.items():
        if name not in schema.get("required", ()) and not _takes_null(value):
            default = {"default": value.pop("default")} if "default" in value else {}
            properties[name] = {"anyOf": [value, {"type": "null"}], **default}
    for name, neutral in table.items():
        why = f"Not supported; these values change nothing: {neutral.why}."
        properties[name] = {"enum": [*neutral.values, None], "description": why}


def _is_neutral(neutral: Neutral | None, value: Any, body: Json) -> bool:
    if neutral is None:
        return False
    other = () if neutral.same_as is None else (body.get(neutral.same_as),)
    return any(_same(value, one) for one in (*neutral.values, *other))


def _same(left: Any, right: Any) -> bool:
    """Whether two JSON values are the same; true is not 1."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _takes_null(schema: Json) -> bool:
    return any(option.get("type") == "null" for option in (schema, *schema.get("anyOf", ())))
