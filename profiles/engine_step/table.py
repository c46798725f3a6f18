"""A step's profile as a table for a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table

from nemotrt.engines.backends.native.library.library import best_isa
from nemotrt.profiles.engine_step.measurement import StepProfile


def profile_table(found: StepProfile) -> RenderableType:
    """Return the operators, the slowest first, and the machine's limits below."""
    load, limits = found.load, found.limits
    table = Table(
        title=f"{load.batch} sequences of {load.held} held tokens, {load.tokens} new each: "
        f"{found.step_ms:.2f} ms a step, {found.tokens_per_s:.1f} tokens/s"
    )
    table.add_column("operator")
    for name in ("calls", "ms", "share", "roofline ms", "reached", "GB/s", "Gop/s"):
        table.add_column(name, justify="right")
    table.add_column("limited by")
    for item in found.operators:
        table.add_row(
            item.name,
            str(item.num_operations),
            f"{item.ms:.3f}",
            f"{item.share:.1%}",
            *(
                (f"{item.roofline_ms:.3f}", f"{item.roofline_share:.0%}")
                if item.limited_by
                else ("-", "-")
            ),
            f"{item.gb_per_s:.1f}",
            f"{item.gop_per_s:.1f}",
            item.limited_by or "cached activations",
        )
    table.add_row("outside the library", "", f"{found.outside_ms:.3f}", *[""] * 6)
    return Group(
        table,
        f"Roofline {found.roofline_ms:.2f} ms, {found.reached:.0%} reached{_held(found)}. "
        f"Measured here, {limits.num_threads} threads, kernels for {best_isa().name}, "
        f"over as many bytes as a step moves: read "
        f"{limits.read_bytes_per_s / 1e9:.1f} GB/s, update in place "
        f"{limits.update_bytes_per_s / 1e9:.1f} GB/s, float32 "
        f"{limits.float_ops_per_s / 1e9:.0f} Gop/s, int16 "
        f"{limits.int16_ops_per_s / 1e9:.0f} Gop/s.",
        *filter(None, [_memory(found), found.machine_use.text]),
    )


def _held(found: StepProfile) -> str:
    """Return which operator keeps the step from its roofline."""
    item = found.held_by
    if item is None:
        return ""
    lost_ms = item.ms - item.roofline_ms
    if found.outside_ms > lost_ms:
        return f", held up outside the library ({found.outside_ms:.2f} ms)"
    return f", held up by {item.name} ({lost_ms:.2f} ms more than its own)"


def _memory(found: StepProfile) -> str:
    """Return what is in memory, and in which pages."""
    parts = [
        f"{what} {use.num_bytes / 2**20:.0f} MiB, {use.resident_bytes / 2**20:.0f} in memory, "
        f"{use.huge_bytes / 2**20:.0f} in huge pages"
        for what, use in (("Weights", found.weights), ("states", found.states))
        if use is not None
    ]
    if found.num_memory_nodes:
        parts.append(f"memory nodes: {found.num_memory_nodes}")
    return f"{'; '.join(parts)}." if parts else ""
