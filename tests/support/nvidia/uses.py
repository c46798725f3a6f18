"""What our source asks of TensorRT's module, held to an Api: types are followed through the source.

A name `trt` and an attribute `_trt` are the module. From there on the binding's own signatures say
what a call returns and what a property is; parameters of our functions have the types that they are
called with, or that they are annotated with. An attribute whose object's type is not told, though
its name is the binding's alone, is a fault too, so that nothing slips through unread.
"""

import ast
from functools import cache
from pathlib import Path

from support.nvidia.api import Api
from support.nvidia.expressions import Expressions
from support.nvidia.told import MODULE, MODULE_NAMES, Reading, Type

ROUNDS = 4  # through all files, until every parameter's type has arrived


def read(files: list[Path], api: Api) -> Reading:
    """Return what the files use of the binding, and every fault."""
    found = Reading(api)
    trees = {path: _tree(path) for path in files}
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


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _names_the_module(tree: ast.Module) -> bool:
    """Whether a file has the module at all, by name, attribute or parameter."""
    return any(
        isinstance(node, ast.Name | ast.Attribute | ast.arg | ast.alias)
        and {getattr(node, key, None) for key in ("id", "attr", "arg", "asname")}
        & set(MODULE_NAMES)
        for node in ast.walk(tree)
    )


class _Walk(Expressions):
    """Walks one file, statement by statement."""

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
