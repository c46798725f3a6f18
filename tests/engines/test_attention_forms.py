"""Why a plan's attention is told what is visible by a mask: what the real compiler makes of it.

docs/internals/tensorrt/compile.md gives these figures. Where a newer compiler makes more of another
form, a test here fails, and the choice is to be made again.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "support" / "attention_forms.py"
MIB = 2**20
FULL = 24_576  # the 9B's planned tokens
PROMPT = 512  # tokens of a prompt call


def compiled(target: str, capacity: int, tokens: int, *forms: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(SCRIPT), target, str(capacity), str(tokens), *forms]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "target",
    ["SM86", *(pytest.param(other, marks=pytest.mark.slow) for other in ("SM80", "SM89"))],
)
def test_neither_lengths_nor_packed_tokens_serve_a_decode_step(target: str) -> None:
    """Packed tokens have no kernel; by lengths a lane loads 2 bytes where it loads 16 by a mask."""
    mask, lengths, packed = compiled(target, 1024, 64, "mask", "lengths", "packed")
    assert "no fused kernel is available on this target and no decomposition" in packed["errors"][0]
    assert (mask["widths"]["gemv_mha"], lengths["widths"]["gemv_mha"]) == (8, 1)
    for found in (mask, lengths):  # of keys, and of values: the whole cache, whatever the length
        loops = re.findall(r"for \(int \w+ = 0; \w+ < 1024; \w+ ?\+= \d+\)", decode_kernel(found))
        assert len(loops) == 2


def decode_kernel(found: dict[str, Any]) -> str:
    source: str = found["sources"]["gemv_mha"]
    return source


@pytest.mark.slow
@pytest.mark.parametrize("target", ["SM80", "SM86"])
def test_the_scratch_of_a_prompt_call(target: str) -> None:
    """A mask's 24 MiB less by lengths; 130 for 514 if the cache is copied once a group of heads.

    In one plan decode would copy it as well.
    """
    mask, lengths, copied = compiled(target, FULL, PROMPT, "mask", "lengths", "copied")
    scratch = [round(found["scratch_bytes"][1] / MIB) for found in (mask, lengths, copied)]
    assert scratch == [514, 490, 130]
    whole = 2 * 8 * FULL * 128 * 2  # keys and values of one sequence, in 16 bits
    assert copied["scratch_bytes"][1] > whole
    assert mask["scratch_bytes"][1] > 5 * whole  # for each of a group's five query heads
    decode = [round(found["scratch_bytes"][0] / MIB, 1) for found in (mask, lengths, copied)]
    assert decode == [0.2, 0.2, 1536.2]
