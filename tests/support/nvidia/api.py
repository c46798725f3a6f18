"""What a binding offers, read from the signatures that pybind11 writes into its documentation."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# The prefix of a type's name in a signature: tensorrt_bindings.tensorrt.Builder.
MODULE = re.compile(r"\btensorrt\w*\.(?:tensorrt\w*\.)?")


@dataclass(frozen=True)
class Parameter:
    """A parameter: its type as text, and whether a call may leave it out."""

    name: str
    type: str
    is_optional: bool


@dataclass(frozen=True)
class Signature:
    """One overload, without `self`."""

    parameters: tuple[Parameter, ...]
    returns: str
    takes_any: bool = False  # *args, **kwargs


@dataclass(frozen=True)
class Member:
    """A method (`signatures`), a property, a value of `type`, or a class of the full name `type`.

    A getter's type is "" where pybind11 does not say it.
    """

    kind: str
    type: str = ""
    signatures: tuple[Signature, ...] = ()
    is_settable: bool = False


class Api:
    """A module's classes by full name ("" is the module itself), with inherited members."""

    def __init__(self, dumped: dict[str, Any]) -> None:
        self.bases: dict[str, tuple[str, ...]] = {}
        self.members: dict[str, dict[str, Member]] = {}
        self._add("", dumped)

    def _add(self, name: str, dumped: dict[str, Any]) -> None:
        self.bases[name] = tuple(dumped["bases"])
        found = {}
        for key, value in dumped["members"].items():
            if "class" in value:
                full = f"{name}.{key}".lstrip(".")
                self._add(full, value["class"])
                found[key] = Member("class", full)
            elif "property" in value:
                types = [s.returns for s in signatures("", value["property"])]
                kind = types[0] if types else ""
                found[key] = Member("property", kind, is_settable=value["is_settable"])
            elif "function" in value:
                all_of_it = tuple(signatures(key, value["function"]))
                is_method = bool(name)
                found[key] = Member("function", signatures=_without_self(all_of_it, is_method))
            else:
                found[key] = Member("value", MODULE.sub("", value["value"]))
        self.members[name] = found

    def is_a(self, kind: str, wanted: str) -> bool:
        """Whether a class is another or derives from it."""
        return kind == wanted or wanted in self.bases.get(kind, ())

    def is_enum(self, kind: str) -> bool:
        """Whether a class is an enum of the binding."""
        return "__members__" in self.members.get(kind, {}) or any(
            m.kind == "value" and m.type == kind.rpartition(".")[2]
            for m in self.members.get(kind, {}).values()
        )


def _without_self(found: tuple[Signature, ...], is_method: bool) -> tuple[Signature, ...]:
    if not is_method:
        return found
    kept = []
    for item in found:
        first = item.parameters[:1]
        # NVIDIA's own text has "get_aliased_input(self: int)": its class is lost, not its argument
        lost = first and first[0].name == "self" and first[0].type in ("int", "typing.SupportsInt")
        own = () if lost else first
        rest = (
            item.parameters[len(own) :]
            if own and own[0].name in ("self", "this")
            else (item.parameters)
        )
        kept.append(Signature(rest, item.returns, item.takes_any))
    return tuple(kept)


def signatures(name: str, document: str) -> Iterator[Signature]:
    """Yield the overloads in a function's documentation; `name` "" is a getter's."""
    for line in document.splitlines():
        text = re.sub(r"^\d+\. ", "", line.strip())
        if not text.startswith(f"{name}("):
            continue
        end = _closing(text, len(name))
        if end < 0:
            continue
        inside, rest = text[len(name) + 1 : end], text[end + 1 :].strip()
        if inside == "*args, **kwargs" and "Overloaded" in document:
            continue
        items = list(_split(inside))
        takes_any = any(item.startswith("*") for item in items)
        named = tuple(_parameter(item) for item in items if item[0] not in "*/")
        returns = rest.removeprefix("->").strip() if rest.startswith("->") else ""
        yield Signature(named, MODULE.sub("", returns), takes_any)


def _closing(text: str, start: int) -> int:
    """Return where the bracket that opens at `start` closes."""
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] in "([{") - (text[index] in ")]}")
        if depth == 0:
            return index
    return -1


def _split(text: str) -> Iterator[str]:
    """Yield the parameters of a signature; a comma in a bracket parts none."""
    depth, start = 0, 0
    for index, letter in enumerate(text):
        depth += (letter in "([{<") - (letter in ")]}") - (letter == ">" and text[index - 1] != "-")
        if letter == "," and depth == 0:
            yield text[start:index].strip()
            start = index + 1
    if text[start:].strip():
        yield text[start:].strip()


def _parameter(text: str) -> Parameter:
    declared, has_default, _ = text.partition(" = ")
    name, _, kind = declared.partition(":")
    return Parameter(name.strip(), MODULE.sub("", kind.strip()), bool(has_default) or "=" in name)
