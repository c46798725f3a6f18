"""What an answer must look like, by the names of OpenAI, vLLM and NVIDIA's NIM."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from nemotrt.serve.front.schema.messages import Strict, Text
from nemotrt.serve.front.schema.neutral import STRUCTURED_OUTPUTS, Table

GBNF_RULE = re.compile(r"^\s*[\w-]+\s*::=", re.MULTILINE)  # Lark has a colon alone
Schema = dict[str, Any] | Text
Choices = Annotated[list[Annotated[Text, Field(min_length=1)]], Field(min_length=1)]
ANY_OBJECT: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Form:
    """What `field` of a request says of its answer: a schema, its JSON, or a list of texts."""

    field: str
    kind: Literal["json_schema", "regex", "choice", "lark", "ebnf_grammar"]
    guide: Any


def _forms(
    name: str, schema: Any, regex: str | None, choice: list[str] | None, grammar: str | None
) -> list[Form]:
    """Return the forms of the fields that are given; `name` has a place for each one's name."""
    is_gbnf = grammar is not None and GBNF_RULE.search(grammar)
    found = (
        Form(name.format("json"), "json_schema", schema),
        Form(name.format("regex"), "regex", regex),
        Form(name.format("choice"), "choice", choice),
        Form(name.format("grammar"), "ebnf_grammar" if is_gbnf else "lark", grammar),
    )
    return [form for form in found if form.guide is not None]


class JsonSchema(Strict):
    """A named JSON schema."""

    name: str | None = None
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """The form of the answer, kept by masking logits in the engine."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_has_its_type(self) -> "ResponseFormat":
        if self.json_schema is not None and self.type != "json_schema":
            raise PydanticCustomError("unused", "json_schema goes with type 'json_schema' alone")
        return self

    @property
    def forms(self) -> list[Form]:
        """The form, none for `text`; its guide is None where a schema lacks."""
        if self.type == "text":
            return []
        schema = self.json_schema.json_schema if self.json_schema else None
        guide = ANY_OBJECT if self.type == "json_object" else schema
        return [Form("response_format.json_schema", "json_schema", guide)]


class StructuredOutputs(Strict):
    """vLLM's; one of its fields."""

    neutral: ClassVar[Table] = STRUCTURED_OUTPUTS

    json_schema: Schema | None = Field(default=None, alias="json")
    json_object: bool = False
    regex: Text | None = None
    choice: Choices | None = None
    grammar: Text | None = None

    @property
    def forms(self) -> list[Form]:
        """What its fields say."""
        name = "structured_outputs.{}"
        found = _forms(name, self.json_schema, self.regex, self.choice, self.grammar)
        if self.json_object:
            found.append(Form(name.format("json_object"), "json_schema", ANY_OBJECT))
        return found


class Guided(Strict):
    """The older names of vLLM, which are NIM's too."""

    guided_json: Schema | None = None
    guided_regex: Text | None = None
    guided_choice: Choices | None = None
    guided_grammar: Text | None = None

    def guided_forms(self, prefix: str = "") -> list[Form]:
        """Return what the fields say; `prefix` stands before their names."""
        fields = self.guided_json, self.guided_regex, self.guided_choice, self.guided_grammar
        return _forms(f"{prefix}guided_{{}}", *fields)


class NvExt(Guided):
    """What NVIDIA's NIM takes beside OpenAI's fields."""

    max_thinking_tokens: Annotated[int, Field(strict=True, ge=0, lt=2**31)] | None = None
