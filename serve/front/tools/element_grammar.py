"""The grammar of calls that are elements: each argument's value as its schema says.

What it lets a model write, `call_element` reads as what was meant: a string holds nothing that
would end it, and nothing that would be read as another type. Arguments come in the order of the
schema, and only those that it names, unless it names none.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from nemotrt.engines.model.families import XmlCall
from nemotrt.errors import ConfigError
from nemotrt.serve.front.tools.call_element import MAX_NAME, NAME
from nemotrt.serve.front.tools.element_text import Alternatives, Texts
from nemotrt.serve.front.tools.value_types import STRING, ArgumentTypes, Schema

# Keywords that say something of several arguments at once.
# Source: JSON Schema 2020-12, applicators and validation of objects; `dependencies`: draft 7.
REFUSED = (
    *("allOf", "anyOf", "oneOf", "not", "if", "enum", "const", "$dynamicRef"),
    *("patternProperties", "propertyNames", "maxProperties", "minProperties"),
    *("dependentRequired", "dependentSchemas", "dependencies"),
)
ANY_NAME = r"/[^<>\s]{1,64}/"
DEFINITIONS = ("$defs", "definitions")
ELSEWHERE = re.compile(r'"\$ref": ("#(?:/(?!(?:\$defs|definitions)/)[^"]*)?")')


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
                "form can't keep, nor a strict one; leave it out, or let tool_choice be auto and "
                "strict false."
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
            is_written = NAME.fullmatch(name) and name.strip() == name
            if not is_written or not 0 < len(name) <= MAX_NAME:
                raise ConfigError(f"the model's form of calls can't write the name {name!r}.")
            rule = f"argument_{number}_{i}"
            head = json.dumps(f"{opening}{name}>\n", ensure_ascii=False)
            value = self._value(schema, types)
            yield rule + "?" * (name not in required), f"{rule}: {head} ({value})"
        if not names and types.schema_of("") is not False:
            rule, head = f"arguments_{number}", json.dumps(opening)
            value = self._value(types.schema_of(""), types)
            yield f"{rule}*", f'{rule}: {head} {ANY_NAME} ">\\n" ({value})'

    def _value(self, schema: Any, types: ArgumentTypes) -> str:
        """Return the alternatives of a value, with all that follows it."""
        alternatives, kinds = Alternatives(types), types.of(schema)
        found = alternatives.of(schema)
        bound = alternatives.bound_types(found)
        items = []
        for schemas in found:
            own = alternatives.types_of(schemas)
            if others := sorted(own - STRING):
                held = [{"type": others}, *schemas] if "string" in own else list(schemas)
                wanted = json.dumps(_with_definitions(held, types.root))
                items.append(f"%json {wanted} {json.dumps(self._texts.close)}")
            if "string" in own:
                items += self._texts.items(schemas, kinds, bound)
        if not items:
            raise ConfigError("an argument may have no value.")
        return " | ".join(dict.fromkeys(items))


def _names(required: Any) -> list[str]:
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise ConfigError("required must be a list of names.")
    return required


def _with_definitions(schemas: list[Schema], root: Schema) -> Schema:
    """Return one schema of all, with the definitions of `root` if it refers to them.

    Raises:
        ConfigError: it refers to another place of `root`.
    """
    whole = schemas[0] if len(schemas) == 1 else {"allOf": schemas}
    if '"$ref"' not in json.dumps(whole):
        return whole
    whole = {**whole, **{name: root[name] for name in DEFINITIONS if name in root}}
    elsewhere = ELSEWHERE.search(json.dumps(whole))
    if elsewhere:
        raise ConfigError(
            f"the reference {elsewhere[1]} can't be followed in a forced call of this model's "
            "form; put what it refers to into $defs."
        )
    return whole
