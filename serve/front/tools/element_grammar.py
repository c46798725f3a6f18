"""The grammar of calls that are elements: each argument's value as its schema says.

What it lets a model write, `call_element` reads as what was meant: a string holds nothing that
would end it, and nothing that would be read as another type. Arguments come in the order of the
schema, and only those that it names, unless it names none.
"""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from nemotrt.engines.model.families import XmlCall
from nemotrt.errors import ConfigError
from nemotrt.serve.front.tools.call_element import MAX_NAME, NAME
from nemotrt.serve.front.tools.element_text import Texts
from nemotrt.serve.front.tools.value_types import STRING, ArgumentTypes, Schema

# Keywords that say something of several arguments at once.
# Source: JSON Schema 2020-12, applicators and validation of objects; `dependencies`: draft 7.
REFUSED = (
    *("allOf", "anyOf", "oneOf", "not", "if", "enum", "const", "$dynamicRef"),
    *("patternProperties", "propertyNames", "maxProperties", "minProperties"),
    *("dependentRequired", "dependentSchemas", "dependencies"),
)
ANY_NAME = r"/[^<>\s]{1,64}/"
ROOT_ID = "tool:arguments"  # by which an argument's schema refers to others of its tool


class ElementGrammar:
    """The rules of a request's functions, and the terminals that they share.

    The `<` of a tag belongs to what stands before it: so it is certain where a string ends.
    """

    def __init__(self, form: XmlCall, end: str) -> None:
        """Start without a function; `end` closes a block of calls."""
        self._form, self._texts = form, Texts(form, end)

    @property
    def terminals(self) -> list[str]:
        """The lines of the terminals."""
        return [f"{name}: {body}" for body, name in self._texts.terminals.items()]

    def rules(self, number: int, name: str, parameters: Schema) -> list[str]:
        """Return the rules of `call_{number}`, a call of the function `name`.

        Raises:
            ConfigError: the schema of its arguments asks for what can't be kept.
        """
        types = ArgumentTypes(parameters)
        unkept = next((word for word in REFUSED if word in types.whole), None)
        if unkept:
            raise ConfigError(
                f"the parameters of {name!r} have {unkept!r}, which a forced call in this model's "
                "form can't keep; leave it out, or let tool_choice be auto."
            )
        try:
            arguments = list(self._arguments(number, types))
        except ConfigError as error:
            raise ConfigError(f"the parameters of {name!r}: {error.message}") from error
        head = json.dumps(f"{self._form.function.open}{name}>\n<")
        last = json.dumps(self._form.function.close[1:])
        used = [item for item, _ in arguments]
        return [
            f"call_{number}: {' '.join([head, *used, last])}",
            *(rule for _, rule in arguments),
        ]

    def _arguments(self, number: int, types: ArgumentTypes) -> Iterator[tuple[str, str]]:
        """Yield for each argument how the call's rule has it, and its own rule."""
        required = _names(types.whole.get("required", []))
        opening = self._form.parameter.open[1:]
        names = list(dict.fromkeys((*types.properties, *required)))
        for i, name in enumerate(names):
            schema = types.schema_of(name)
            if schema is False and name not in required:
                continue
            if NAME.fullmatch(name.strip() and name) is None or not 0 < len(name) <= MAX_NAME:
                raise ConfigError(f"the model's form of calls can't write the name {name!r}.")
            rule = f"argument_{number}_{i}"
            head = json.dumps(f"{opening}{name}>\n", ensure_ascii=False)
            value = self._value(schema, types, f"/properties/{_escaped(name)}")
            yield rule + "?" * (name not in required), f"{rule}: {head} ({value})"
        if not names and types.schema_of("") is not False:
            rule, head = f"arguments_{number}", json.dumps(opening)
            value = self._value(types.schema_of(""), types, "/additionalProperties")
            yield f"{rule}*", f'{rule}: {head} {ANY_NAME} ">\\n" ({value})'

    def _value(self, schema: Any, types: ArgumentTypes, pointer: str) -> str:
        """Return the alternatives of a value, which stands at `pointer`, with all that follows."""
        items = []
        if others := sorted(types.of(schema) - STRING):
            wanted: dict[str, Any] = {"allOf": [schema, {"type": others}]}
            if '"$ref"' in json.dumps(schema):
                whole = {"$id": ROOT_ID, **types.root}
                start = types.root["$ref"] if "properties" not in types.root else "#"
                wanted["allOf"][0] = {"$ref": f"{whole['$id']}{start}{pointer}"}
                wanted["$defs"] = {"tool": whole}
            items.append(f"%json {json.dumps(wanted)} {json.dumps(self._texts.close)}")
        return " | ".join((*items, *self._texts.items(schema, types)))


def _names(required: Any) -> list[str]:
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise ConfigError("required must be a list of names.")
    return required


def _escaped(name: str) -> str:
    """Return a name as a part of a pointer."""
    return quote(name.replace("~", "~0").replace("/", "~1"))
