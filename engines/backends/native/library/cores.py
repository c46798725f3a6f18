"""Which CPUs share a core, and how many nodes the memory has: as Linux tells it below /sys."""

from collections.abc import Iterable
from pathlib import Path

DEVICES = Path("/sys/devices/system")


def core_order(cpus: Iterable[int], devices: Path = DEVICES) -> list[int]:
    """Return the CPUs, one of each core first, then the others of theirs."""
    seen: dict[frozenset[int], int] = {}
    order = []
    for cpu in sorted(cpus):
        path = devices / "cpu" / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        core = frozenset(numbers(path.read_text()) if path.is_file() else (cpu,))
        seen[core] = seen.get(core, -1) + 1
        order.append((seen[core], cpu))
    return [cpu for _, cpu in sorted(order)]


def memory_nodes(devices: Path = DEVICES) -> tuple[int, ...]:
    """Return the numbers of the nodes that have memory; () where the system does not tell."""
    path = devices / "node" / "has_memory"
    return numbers(path.read_text()) if path.is_file() else ()


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a list such as "0-2,8"."""
    found: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1) if part else ()
    return tuple(found)
