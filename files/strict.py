"""How a file's models are read: frozen, and unknown keys refused; pydantic itself is not needed."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ConfigDict

STRICT: "ConfigDict" = {"frozen": True, "extra": "forbid"}
