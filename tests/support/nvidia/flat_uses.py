"""What our source asks of the flat APIs, cuda.bindings and pynvml: names, and counts of arguments.

A name is an attribute or a text that begins as the API's names do. The arguments of a call are
those after the name, whether the name is called or is handed on with them: `call("cudaFree", x)`.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.nvidia.api import Api

CUDA = re.compile(r"(cuda|cu|nvrtc)[A-Z]\w*")
NVML = re.compile(r"(nvml|NVML)[A-Z_]\w*")


@dataclass(frozen=True)
class Use:
    """A name in a file; `num_arguments` is None where it is not called, or by a list."""

    name: str
    where: str
    num_arguments: int | None = None


def uses(files: list[Path], names: re.Pattern[str]) -> Iterator[Use]:
    """Yield every use in the files."""
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if (name := _name(node, names)) is not None:
                yield Use(name, where)
            if isinstance(node, ast.Call):
                parts = [node.func, *node.args]
                for index, part in enumerate(parts):
                    name, after = _name(part, names), parts[index + 1 :]
                    if name is not None and not any(isinstance(x, ast.Starred) for x in after):
                        yield Use(name, where, len(after))
                        break


def _name(node: ast.AST, names: re.Pattern[str]) -> str | None:
    found = node.attr if isinstance(node, ast.Attribute) else None
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        found = node.value
    return found if found is not None and names.fullmatch(found) else None


def faults(found: list[Use], apis: list[Api]) -> list[str]:
    """Return what none of the modules has, and what is called with another number of arguments."""
    wrong: list[str] = []
    for use in found:
        members = [m[use.name] for api in apis for m in api.members.values() if use.name in m]
        if not members:
            wrong.append(f"{use.where}: no {use.name}")
        signatures = [signature for member in members for signature in member.signatures]
        if use.num_arguments is None or not signatures:
            continue
        if not any(
            s.takes_any
            or sum(not p.is_optional for p in s.parameters)
            <= use.num_arguments
            <= len(s.parameters)
            for s in signatures
        ):
            named = [[p.name for p in s.parameters] for s in signatures]
            wrong.append(f"{use.where}: {use.name} takes {named}, not {use.num_arguments}")
    return sorted(set(wrong))
