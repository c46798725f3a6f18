"""What is known of our source as it is walked: types, and what our functions are given."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from support.nvidia.api import Api

MODULE_NAMES = ("trt", "_trt")
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
