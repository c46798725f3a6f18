"""Tool calls as each form's templates write them, and the schemas that such calls keep."""

import json
import re
from typing import Any

from nemotrt.engines.model.families import ChatFormat, XmlCall

Calls = list[tuple[str, dict[str, Any]]]
TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def written(family: ChatFormat, calls: Calls) -> str:
    """Return calls as a family's model writes them."""
    form = family.calls
    items = [_call(family, name, arguments) for name, arguments in calls]
    return form.before + form.between.join(items) + form.after


def schemas(calls: Calls) -> dict[str, Any]:
    """Return by function the schema of what its calls have; a name's values are of one type."""
    found: dict[str, Any] = {}
    for name, arguments in calls:
        kinds = {key: {"type": type_of(value)} for key, value in arguments.items()}
        found.setdefault(name, {"type": "object", "properties": {}})["properties"] |= kinds
    return found


def type_of(value: Any) -> str:
    """Return the type of a value, in JSON schema's words."""
    return TYPES.get(type(value), "array" if isinstance(value, list) else "object")


def is_tellable(family: ChatFormat, calls: Calls) -> bool:
    """Whether a reader can tell each call's values from the form's own tags."""
    form = family.calls.call
    if not isinstance(form, XmlCall):
        return True
    space = "[ \t\n\r]*"
    parameter, function = form.parameter, form.function
    names = [name for _, arguments in calls for name in arguments]
    lines = "|".join(re.escape(f"{parameter.open}{name}>") for name in names) or "(?!)"
    ends = re.compile(
        f"{parameter.close}{space}({parameter.open}|{function.close}|{family.calls.tags.close})"
        f"|{function.close}{space}{family.calls.tags.close}|\n({lines})"
    )
    texts = [v for _, arguments in calls for v in arguments.values() if isinstance(v, str)]
    kinds = [(name, key, type_of(v)) for name, held in calls for key, v in held.items()]
    is_of_one_type = len(set(kinds)) == len({kind[:2] for kind in kinds})
    is_named = all(
        re.fullmatch(r"[^<>\n]{1,1024}", name) and name == name.strip() for name in names
    )
    return is_named and is_of_one_type and not any(ends.search("\n" + text) for text in texts)


def _call(family: ChatFormat, name: str, arguments: dict[str, Any]) -> str:
    form = family.calls.call
    if not isinstance(form, XmlCall):
        return json.dumps({"name": name, "arguments": arguments})
    said = [
        f"{form.parameter.open}{key}>\n"
        f"{value if isinstance(value, str) else json.dumps(value)}\n{form.parameter.close}\n"
        for key, value in arguments.items()
    ]
    return f"{form.function.open}{name}>\n{''.join(said)}{form.function.close}"
