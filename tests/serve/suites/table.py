"""docs/measurements/peers.md: the table by test, which is also what a later run is held to."""

import datetime
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from verdict import Judged, Verdict

DOCS = Path(__file__).parents[3] / "docs/measurements/peers.md"
HEAD = """\
# Peers' own tests

llama.cpp's and vLLM's own tests of their servers run against ours, with only the address and the
model's name changed. Each test passes, is the peer's alone for the reason told, or is refused by
the name of a field (or of an endpoint) that this server has not. Nothing else is allowed, a 5xx
answer least of all. Cases of one test that ended alike are one line with their number. The suites
are fetched by the script that runs them, checked, and not kept here:

<!-- not run: it fetches the peers' sources and takes an hour -->
```bash
python tests/serve/suites/run.py            # compare with this table
python tests/serve/suites/run.py --write    # write it anew; --triton: over Triton
```

Of vLLM these are its tests of messages, chats, completions, responses, models and token ids; vLLM
itself isn't installed for them. What counts as a peer's alone stands in
`tests/serve/suites/theirs.yaml`, by endpoint, or by test and by how it fails.
"""
ROW = re.compile(r"^\| `(.+?)` \| (.*?) \| (.*?) \| (.*?) \|$")


def rows(judged: Iterable[Judged]) -> list[str]:
    """Return a suite's lines, sorted."""
    counts = Counter((name_of(one.test), one.verdict, clean(one.why)) for one in judged)
    return [
        f"| `{test}` | {number} | {verdict} | {why} |"
        for (test, verdict, why), number in sorted(counts.items())
    ]


def section(suite: str, version: str, judged: list[Judged]) -> str:
    """Return a suite's section."""
    totals = Counter(one.verdict for one in judged)
    told = ", ".join(f"{totals[verdict]} {verdict}" for verdict in Verdict if totals[verdict])
    today = datetime.datetime.now(tz=datetime.UTC).date()
    head = f"## {suite} {version}, {today}\n\n{len(judged)} tests: {told}.\n\n"
    return head + "\n".join(
        ["| test | cases | verdict | why |", "|---|---|---|---|", *rows(judged)]
    )


def kept_rows(suite: str) -> list[str]:
    """Return a suite's lines as the documentation has them."""
    text = DOCS.read_text("utf-8")
    part = text.partition(f"\n## {suite} ")[2].partition("\n## ")[0]
    return [line for line in part.splitlines() if ROW.match(line)]


def name_of(test: str) -> str:
    """Return a test's name, below its suite's folder of tests and without its case."""
    return test.partition("[")[0].partition("#")[0].removeprefix("tests/")


def clean(text: str) -> str:
    """Return a reason as one cell, without what differs between runs."""
    text = re.sub(r"0x[0-9a-f]+", "0x", " ".join(text.split()))
    return text.replace("|", "\\|")[:160]
