"""What a running server does when the system refuses it something that its clients do without."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from nemotrt.errors import NemotrtError

log = logging.getLogger("nemotrt.serve")
_refused: set[str] = set()


@contextmanager
def going_on(what: str) -> Iterator[None]:
    """Log that the system refuses to do `what`, once until it is done again, and go on."""
    try:
        yield
    except (OSError, NemotrtError) as error:
        if what not in _refused:
            log.warning("can't %s: %s; the server goes on", what, error)
        _refused.add(what)
    else:
        _refused.discard(what)
