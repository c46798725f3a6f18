"""What follows a request through the processes: its id, and the trace that it is part of."""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

LEGAL_ID = re.compile(r"[!-~]{1,128}")  # what can stand in a header and in a line of a log
# Source: W3C Trace Context, level 1, sections 3.2 and 3.3.
LEGAL = {
    "request_id": LEGAL_ID,
    "traceparent": re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
    "tracestate": re.compile(r"[ -~]{1,512}"),
}


@dataclass(frozen=True, slots=True)
class Trail:
    """Texts that can stand in a header and in a line of a log; "" where there is none."""

    request_id: str = ""
    traceparent: str = ""
    tracestate: str = ""

    def fields(self) -> dict[str, str]:
        """Return what there is, as a frame or Triton's parameters carry it."""
        return {name: text for name, text in asdict(self).items() if text}


NO_TRAIL = Trail()
CURRENT: ContextVar[Trail] = ContextVar("trail", default=NO_TRAIL)  # of the request at hand


def read_trail(fields: Any) -> Trail:
    """Return the trail that a client sent; what is none is left out: it changes no answer."""
    if not isinstance(fields, Mapping):
        return NO_TRAIL
    told = {name: fields.get(name) for name in LEGAL}
    return Trail(
        **{
            name: text
            for name, text in told.items()
            if isinstance(text, str) and LEGAL[name].fullmatch(text)
        }
    )
