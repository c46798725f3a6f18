"""What our source asks of TensorRT's module, held to an Api: types are followed through the source.

A name `trt` and an attribute `_trt` are the module. From there on the binding's own signatures say
what a call returns and what a property is; parameters of our functions have the types that they are
called with, or that they are annotated with. An attribute whose object's type is not told, though
its name is the binding's alone, is a fault too, so that nothing slips through unread.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from support.nvidia.api import Api, Member, Signature

MODULE_NAMES = ("trt", "_trt")
ROUNDS = 4  # through all files, until every parameter's type has arrived
# What the signature of a function does not say. Source: TensorRT's Python documentation.
UNTOLD = {"get_plugin_registry": "IPluginRegistry"}
# Members of two words that other objects in our source have too: a Mamba layer's groups.
KNOWN_ELSEWHERE = ("num_groups",)
WRAPPERS = re.compile(r"^(?:\w+\.)*(?:List|list|Sequence|Optional|Union)\[(.*)\]$")


@dataclass(frozen=True)
class Type:
    """What an expression is.

    `kind`: "module", "class", "object", "list" (of `of`), "bound" (a member of `name`), "ours" (a
    class of ours), "mine" (an object of one), "function" (of ours), "constant".
    """

    kind: str
    name: str = ""
    of: Any = None


MODULE = Type("module")


@dataclass
class Reading:
    """What is known of our source, and what was found."""

    api: Api
    parameters: dict[tuple[str, str], Type] = field(default_factory=dict)
    returns: dict[str, Type] = field(default_factory=dict)
    attributes: dict[tuple[str, str], Type] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    bases: dict[str, tuple[Type, ...]] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    faults: set[str] = field(default_factory=set)

    @cached_property
    def distinctive(self) -> set[str]:
        """Names of members that only the binding has, most likely: they have two words."""
        members = (name for known in self.api.members.values() for name in known)
        return {name for name in members if "_" in name.strip("_")}

    def api_bases(self, name: str) -> Iterator[str]:
        """Yield the binding's classes that a class of ours derives from."""
        for base in self.bases.get(name, ()):
            if base.kind == "class":
                yield base.name
            elif base.kind == "ours":
                yield from self.api_bases(base.name)


def read(files: list[Path], api: Api) -> Reading:
    """Return what the files use of the binding, and every fault."""
    found = Reading(api)
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    followed = {path for path, tree in trees.items() if _names_the_module(tree)}
    for _ in range(ROUNDS):
        found.used, found.faults = set(), set()
        for path in followed:
            _Walk(found, path).module(trees[path])
    for path in trees.keys() - followed:
        walk = _Walk(found, path)
        for node in ast.walk(trees[path]):
            if isinstance(node, ast.Attribute):
                walk.untold(node)
    return found


def _names_the_module(tree: ast.Module) -> bool:
    """Whether a file has the module at all, by name, attribute or parameter."""
    return any(
        isinstance(node, ast.Name | ast.Attribute | ast.arg | ast.alias)
        and {getattr(node, key, None) for key in ("id", "attr", "arg", "asname")}
        & set(MODULE_NAMES)
        for node in ast.walk(tree)
    )


class _Walk:
    """Walks one file."""

    def __init__(self, found: Reading, path: Path) -> None:
        self.found, self.api, self.path = found, found.api, path
        self.scope: dict[str, Type] = {}
        self.owner = ""  # the class whose method is walked
        self.function = ""

    def module(self, tree: ast.Module) -> None:
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                self.declare(node)
        self.body(tree.body)

    def declare(self, node: ast.ClassDef | ast.FunctionDef) -> None:
        """Make a class or function known before what is above it is walked."""
        if isinstance(node, ast.ClassDef):
            self.found.classes[node.name] = node
            self.scope[node.name] = Type("ours", node.name)
        else:
            self.scope[node.name] = Type("function", f"{self.path.stem}:{node.name}")

    def fault(self, node: ast.AST, text: str) -> None:
        self.found.faults.add(f"{self.path.name}:{getattr(node, 'lineno', 0)}: {text}")

    # statements

    def body(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.ClassDef():
                self.class_(node)
            case ast.FunctionDef():
                self.function_(node)
            case ast.Assign(targets, value):
                for target in targets:
                    self.assign(target, value)
            case ast.AnnAssign(target, annotation, value):
                kind = self.annotated(annotation)
                told = self.type(value) if value is not None else None
                self.bind(target, kind or told)
            case ast.For(target, iterated, body, orelse):
                kind = self.type(iterated)
                self.bind(target, kind.of if kind and kind.kind == "list" else None)
                self.body([*body, *orelse])
            case ast.Return(value) if value is not None:
                kind = self.type(value)
                if kind:
                    self.found.returns[self.function] = kind
            case ast.With(items, body):
                for item in items:
                    kind = self.type(item.context_expr)
                    if item.optional_vars is not None:
                        self.bind(item.optional_vars, kind)
                self.body(body)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.stmt):
                        self.statement(child)
                    elif isinstance(child, ast.expr):
                        self.type(child)
                    elif isinstance(child, ast.ExceptHandler | ast.match_case):
                        self.body(child.body)

    def assign(self, target: ast.expr, value: ast.expr) -> None:
        """Bind a target to a value; tuples piece by piece."""
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, other in zip(target.elts, value.elts, strict=True):
                self.assign(one, other)
        else:
            self.bind(target, self.type(value))

    def bind(self, target: ast.expr, kind: Type | None) -> None:
        """Give a name or an attribute of ours its type; check an attribute of the binding's."""
        if isinstance(target, ast.Name):
            self.scope.pop(target.id, None)
            if kind:
                self.scope[target.id] = kind
                if kind.kind == "constant" and not self.function and not self.owner:
                    self.found.constants[target.id] = kind.name
        elif isinstance(target, ast.Attribute):
            owner = self.type(target.value)
            if owner and owner.kind == "object":
                member = self.member(target, owner.name, target.attr)
                if member and not (member.kind == "property" and member.is_settable):
                    self.fault(target, f"{owner.name}.{target.attr} can't be set")
            elif owner and owner.kind == "mine":
                if kind:
                    self.found.attributes[owner.name, target.attr] = kind
                for base in self.found.api_bases(owner.name):
                    member = self.api.members[base].get(target.attr)
                    if member is not None:
                        self.found.used.add(f"{base}.{target.attr}")
                        if not member.is_settable:
                            self.fault(target, f"{base}.{target.attr} can't be set")
        elif isinstance(target, ast.Subscript):
            self.type(target.slice)
            owner = self.type(target.value)
            if kind and owner is None and isinstance(target.value, ast.Attribute):
                self.bind(target.value, Type("list", of=kind))  # a dict of such
        elif isinstance(target, ast.Tuple):
            for item in target.elts:
                self.bind(item, None)

    def class_(self, node: ast.ClassDef) -> None:
        bases = tuple(kind for base in node.bases if (kind := self.type(base)))
        self.found.bases[node.name] = bases
        self.scope[node.name] = Type("ours", node.name)
        before, self.owner = self.owner, node.name
        self.body(node.body)
        for base in self.found.api_bases(node.name):
            for item in node.body:
                if isinstance(item, ast.FunctionDef):
                    self.overrides(item, base)
        self.owner = before

    def overrides(self, node: ast.FunctionDef, base: str) -> None:
        """A method that the binding calls takes what the binding passes."""
        member = self.api.members[base].get(node.name)
        if member is None or node.name.startswith("__"):
            return
        self.found.used.add(f"{base}.{node.name}")
        arguments = node.args
        most = len(arguments.args) - 1
        least = most - len(arguments.defaults)
        for signature in member.signatures:
            if not signature.takes_any and not least <= len(signature.parameters) <= most:
                names = [item.name for item in signature.parameters]
                self.fault(node, f"{base}.{node.name} is given {names}")

    def function_(self, node: ast.FunctionDef) -> None:
        name = f"{self.owner}.{node.name}" if self.owner else node.name
        key = name if self.owner else f"{self.path.stem}:{name}"
        self.scope[node.name] = Type("function", key)
        self.found.functions[key] = node
        is_property = any(
            isinstance(d, ast.Name) and "property" in d.id for d in node.decorator_list
        )
        outer, before, owner = dict(self.scope), self.function, self.owner
        for index, argument in enumerate([*node.args.args, *node.args.kwonlyargs]):
            kind = self.annotated(argument.annotation) if argument.annotation else None
            if index == 0 and owner and argument.arg == "self":
                kind = Type("mine", owner)
            elif argument.arg in MODULE_NAMES:
                kind = MODULE
            kind = kind or self.found.parameters.get((key, argument.arg))
            self.scope.pop(argument.arg, None)
            if kind:
                self.scope[argument.arg] = kind
        self.function, self.owner = key, ""
        self.body(node.body)
        self.scope, self.function, self.owner = outer, before, owner
        if owner and is_property and key in self.found.returns:
            self.found.attributes[owner, node.name] = self.found.returns[key]

    # expressions

    def type(self, node: ast.expr | None) -> Type | None:
        """Return what an expression is, if that is told; every use in it is checked."""
        match node:
            case None:
                return None
            case ast.Constant(value) if isinstance(value, str):
                return Type("constant", value)
            case ast.Name(name):
                if name in MODULE_NAMES:
                    return MODULE
                return self.scope.get(name) or self.imported(name)
            case ast.Attribute():
                return self.attribute(node)
            case ast.Call():
                return self.call(node)
            case ast.Lambda(_, body):
                self.type(body)
                return None
            case ast.IfExp(test, body, orelse):
                self.type(test)
                found = self.type(body), self.type(orelse)
                return found[0] or found[1]
            case ast.Subscript(value, index):
                kind = self.type(value)
                self.type(index)
                if kind and kind.kind == "list":
                    return kind.of  # type: ignore[no-any-return]
                if kind and kind.kind == "object":
                    called = self.member(node, kind.name, "__getitem__")
                    return self.told(called.signatures[0].returns) if called else None
                if kind and kind.kind == "class" and self.api.is_enum(kind.name):
                    self.fault(node, f"{kind.name}[...] is not followed; use getattr")
                return None
            case ast.List(elts) | ast.Tuple(elts):
                kinds = [self.type(item) for item in elts]
                same = set(kinds)
                return Type("list", of=kinds[0]) if len(same) == 1 and kinds[0] else None
            case ast.ListComp() | ast.GeneratorExp() | ast.SetComp() | ast.DictComp():
                return self.comprehension(node)
            case ast.NamedExpr(target, value):
                kind = self.type(value)
                self.bind(target, kind)
                return kind
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.type(child)
        return None

    def comprehension(self, node: Any) -> Type | None:
        before = dict(self.scope)
        for part in node.generators:
            kind = self.type(part.iter)
            self.bind(part.target, kind.of if kind and kind.kind == "list" else None)
            for test in part.ifs:
                self.type(test)
        if isinstance(node, ast.DictComp):
            self.type(node.key)
            self.type(node.value)
            element = None
        else:
            element = self.type(node.elt)
        self.scope = before
        return Type("list", of=element) if element else None

    def imported(self, name: str) -> Type | None:
        """Return a class of ours by its name, wherever it stands."""
        if name in self.found.classes:
            return Type("ours", name)
        if name in self.found.constants:
            return Type("constant", self.found.constants[name])
        return None

    def attribute(self, node: ast.Attribute) -> Type | None:
        if node.attr in MODULE_NAMES:
            return MODULE
        owner = self.type(node.value)
        if owner is None:
            self.untold(node)
            return None
        if owner.kind == "module":
            return self.of_member(node, "", node.attr)
        if owner.kind in ("class", "object"):
            return self.of_member(node, owner.name, node.attr)
        if owner.kind == "mine":
            known = self.found.attributes.get((owner.name, node.attr))
            if known:
                return known
            for base in self.found.api_bases(owner.name):
                if node.attr in self.api.members[base]:
                    return self.of_member(node, base, node.attr)
            key = f"{owner.name}.{node.attr}"
            return Type("function", key) if key in self.found.functions else None
        return None

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

    def call(self, node: ast.Call) -> Type | None:
        given = [self.type(item) for item in node.args]
        named = {item.arg: self.type(item.value) for item in node.keywords}
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            return self.by_text(node, given)
        called = self.type(node.func)
        if called is None:
            return None
        if called.kind == "class":
            init = self.api.members[called.name].get("__init__")
            self.check(node, f"{called.name}()", init.signatures if init else (), given, named)
            return Type("object", called.name)
        if called.kind == "bound":
            return self.bound(node, called, given, named)
        if called.kind == "ours":
            self.pass_on(f"{called.name}.__init__", node, given, named, skip=1)
            return Type("mine", called.name)
        if called.kind == "function":
            owner = called.name.partition(".")[0]
            skip = 1 if "." in called.name and owner in self.found.classes else 0
            self.pass_on(called.name, node, given, named, skip)
            return self.found.returns.get(called.name)
        return None

    def bound(self, node: ast.Call, called: Type, given: Any, named: Any) -> Type | None:
        label = f"{called.name}.{called.of}".lstrip(".")
        if called.of == "__init__":  # of a base, on our own object
            given = given[1:]
        overloads = self.api.members[called.name][called.of].signatures
        chosen = self.check(node, label, overloads, given, named)
        if label in UNTOLD:
            return Type("object", UNTOLD[label])
        return self.told(chosen.returns) if chosen else None

    def by_text(self, node: ast.Call, given: list[Type | None]) -> Type | None:
        """Follow getattr(x, "name"): of a text that is told, or of any value of an enum."""
        owner, text = given[0], given[1] if len(given) > 1 else None
        if owner is None or owner.kind not in ("module", "class"):
            return None
        is_optional = len(node.args) == 3 or node.func.id == "hasattr"  # type: ignore[attr-defined]
        if text is None or text.kind != "constant":
            self.found.used.add(f"{owner.name}[...]")
            return Type("object", owner.name) if self.api.is_enum(owner.name) else None
        if is_optional and text.name not in self.api.members[owner.name]:
            self.found.used.add(f"{owner.name}.{text.name}?".lstrip("."))
            return None
        return self.of_member(node, owner.name, text.name)

    def pass_on(self, key: str, node: ast.Call, given: Any, named: Any, skip: int) -> None:
        """Keep the types of what a function of ours is called with."""
        function = self.found.functions.get(key)
        if function is None:
            return
        names = [item.arg for item in function.args.args][skip:]
        for name, kind in [*zip(names, given, strict=False), *named.items()]:
            if kind and name and kind.kind != "constant":
                self.found.parameters[key, name] = kind

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
