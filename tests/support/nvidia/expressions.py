"""What an expression is, as far as it is told; every use in it is checked."""

import ast
from typing import Any

from support.nvidia.calls import Calls
from support.nvidia.told import MODULE, MODULE_NAMES, UNTOLD, Type


class Expressions(Calls):
    """Follows expressions."""

    def bind(self, target: ast.expr, kind: Type | None) -> None:
        """Give a target its type."""
        raise NotImplementedError

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
