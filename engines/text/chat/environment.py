"""The Jinja environment of chat templates: what transformers gives them, in a sandbox.

Source: transformers 5.24, utils/chat_template_utils.py: blocks trimmed, loop controls, the
`generation` block, `tojson` without HTML escapes, `raise_exception`, `strftime_now`.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace


class GenerationBlock(Extension):
    """`{% generation %}` marks what an assistant wrote, for training; here it only has a scope."""

    tags = {"generation"}  # noqa: RUF012, as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the block's body."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class PlainDict:
    """`dict` without the attributes by which a template could reach Python's internals."""

    def __call__(self, *items: Any, **named: Any) -> dict[Any, Any]:
        """Return a dictionary."""
        return dict(*items, **named)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        """Return a dictionary in which all keys have the same value."""
        return dict.fromkeys(keys, value)


class PlainNamespace(Namespace):
    """`namespace` whose attributes never begin with an underscore."""

    def __init__(*args: Any, **named: Any) -> None:
        """Set the attributes."""
        self, *items = args
        attributes = dict(*items, **named)
        for name in attributes:
            _check_attribute(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        """Set an attribute."""
        _check_attribute(name)
        super().__setitem__(name, value)


def template_environment() -> ImmutableSandboxedEnvironment:
    """Return the environment; the sandbox forbids attribute tricks and state changes."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise,
        "strftime_now": _strftime_now,
        "dict": PlainDict(),
        "namespace": PlainNamespace,
    }
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Serialize for a template: no HTML escapes, non-ASCII text kept."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> NoReturn:
    """Let a template refuse its input."""
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    """Return the local time as the template wants it."""
    return datetime.now().strftime(pattern)


def _check_attribute(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace can't have {name!r}; rename the attribute")
