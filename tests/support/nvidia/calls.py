"""Members, calls and annotations, held to the binding's own signatures."""

import ast
from pathlib import Path
from typing import Any

from support.nvidia.api import Member, Signature
from support.nvidia.told import KNOWN_ELSEWHERE, MODULE_NAMES, WRAPPERS, Reading, Type


class Calls:
    """What is asked of the binding in one file."""

    def __init__(self, found: Reading, path: Path) -> None:
        self.found, self.api, self.path = found, found.api, path
        self.scope: dict[str, Type] = {}
        self.owner = ""  # the class whose method is walked
        self.function = ""

    def fault(self, node: ast.AST, text: str) -> None:
        self.found.faults.add(f"{self.path.name}:{getattr(node, 'lineno', 0)}: {text}")

    def untold(self, node: ast.Attribute) -> None:
        """Refuse an attribute that seems the binding's, of an object whose type is not told."""
        if node.attr in self.found.distinctive and node.attr not in KNOWN_ELSEWHERE:
            self.fault(node, f".{node.attr} of something whose type is not told")

    def of_member(self, node: ast.AST, kind: str, name: str) -> Type | None:
        member = self.member(node, kind, name)
        if member is None:
            return None
        if member.kind == "class":
            return Type("class", member.type)
        if member.kind == "value":
            return Type("object", self.full_name(kind, member.type))
        if member.kind == "property":
            return self.told(member.type)
        return Type("bound", kind, name)

    def full_name(self, kind: str, value_type: str) -> str:
        return value_type if value_type in self.api.members else kind

    def member(self, node: ast.AST, kind: str, name: str) -> Member | None:
        """Return a member of a class of the binding; a fault if it has none."""
        self.found.used.add(f"{kind}.{name}".lstrip("."))
        member = self.api.members[kind].get(name)
        if member is None:
            self.fault(node, f"no {kind}.{name}".replace("no .", "no "))
        return member

    def check(
        self,
        node: ast.AST,
        label: str,
        overloads: tuple[Signature, ...],
        given: list[Type | None],
        named: dict[str | None, Type | None],
    ) -> Signature | None:
        """Return the first overload that takes a call; a fault if there is none."""
        self.found.used.add(label.removesuffix("()") + "()")
        reasons = []
        for signature in overloads:
            reason = self.misfit(node, signature, given, named)
            if reason is None:
                return signature
            reasons.append(reason)
        self.fault(node, f"{label}: {'; '.join(reasons) or 'it can not be called'}")
        return None

    def misfit(self, node: Any, signature: Signature, given: Any, named: Any) -> str | None:
        """Return why an overload does not take a call."""
        if signature.takes_any:
            return None
        wanted = signature.parameters
        starred = any(isinstance(item, ast.Starred) for item in node.args)
        if len(given) > len(wanted):
            return f"takes {len(wanted)} arguments, not {len(given)}"
        by_name = {item.name: item for item in wanted}
        unknown = [name for name in named if name not in by_name]
        if unknown:
            return f"has no {unknown[0]}, but {', '.join(by_name)}"
        reached = {item.name for item in wanted[: len(given)]} | set(named)
        missing = [x.name for x in wanted if not x.is_optional and x.name not in reached]
        if missing and not starred:
            return f"needs {missing[0]}"
        pairs = [*zip(wanted, given, strict=False)]
        pairs += [(by_name[name], kind) for name, kind in named.items()]
        for parameter, kind in pairs:
            if not self.fits(parameter.type, kind):
                return f"{parameter.name} is {parameter.type}, not {kind.name or kind.kind}"
        return None

    def fits(self, wanted: str, kind: Type | None) -> bool:
        """Whether a value may be passed where a type is wanted; what is not told may."""
        if kind is None or "|" in wanted or "Union" in wanted:
            return True
        expected = self.told(wanted)
        is_api = expected is not None and expected.kind == "object"
        if kind.kind == "constant":
            return not is_api
        if kind.kind == "object":
            if not is_api:
                return expected is None and not self._is_plain(wanted, kind)
            return self.api.is_a(kind.name, expected.name)  # type: ignore[union-attr]
        if kind.kind == "mine" and is_api:
            bases = self.found.api_bases(kind.name)
            return any(self.api.is_a(base, expected.name) for base in bases)  # type: ignore[union-attr]
        return True

    def _is_plain(self, wanted: str, kind: Type) -> bool:
        """Whether a plain number or text is wanted, which an object of a class is not."""
        plain = ("int", "str", "float", "bool", "typing.SupportsInt")
        return wanted in plain and not self.api.is_enum(kind.name)

    # annotations, ours and the binding's

    def annotated(self, node: ast.expr | None) -> Type | None:
        """Return the type of an annotation that names a class of the binding, or one of ours."""
        match node:
            case ast.Constant(value) if isinstance(value, str):
                return self.annotated(ast.parse(value, mode="eval").body)
            case ast.Attribute(ast.Name(name), attr) if name in MODULE_NAMES:
                kind = self.of_member(node, "", attr)
                return Type("object", kind.name) if kind and kind.kind == "class" else None
            case ast.Name(name) if name in self.found.classes:
                return Type("mine", name)
            case ast.Subscript(ast.Name(name), inner):
                items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                kind = self.annotated(items[-1] if name == "dict" else items[0])
                is_list = name in ("list", "tuple", "Sequence") and kind
                return Type("list", of=kind) if is_list else None
            case ast.BinOp(left, _, right):
                return self.annotated(left) or self.annotated(right)
        return None

    def told(self, text: str) -> Type | None:
        """Return the type that a signature's text says."""
        text = text.strip()
        if text in self.api.members:
            return Type("object", text)
        if text.endswith("| None"):
            return self.told(text.removesuffix("| None"))
        inner = WRAPPERS.match(text)
        if inner:
            kind = self.told(inner[1])
            return Type("list", of=kind) if kind and not text.startswith("Optional") else kind
        return None
