"""llama.cpp's suite against our server: its `ServerProcess` starts ours, and that is all."""

from pathlib import Path
from urllib.parse import urlsplit

import ours
import utils

NAMES = (  # that its tests ask for
    "tinyllama-2",
    "codellama70b",
    "davinci-002",
    "gpt-3.5-turbo",
    "gpt-3.5-turbo-instruct",
    "gpt-4.1",
    "test",
)


def start(self: utils.ServerProcess, timeout_seconds: int = 0) -> None:
    """Stand for a server of ours with the same options, where we have them."""
    options = [part for name in NAMES for part in ("--served-model-name", name)]
    if self.api_key:
        options += ["--api-key-file", ours.key_file(self.api_key)]
    if "://" in (self.cors_origins or ""):  # its word "localhost" is not an origin here
        options += ["--cors-origin", self.cors_origins]
    told = urlsplit(ours.address(tuple(options)))
    self.server_host, self.server_port = told.hostname, told.port


utils.ServerProcess.start = start
utils.ServerProcess.stop = lambda self: None
Path("tmp").mkdir(exist_ok=True)  # where some tests write
utils.ServerPreset.load_all = staticmethod(lambda: None)
