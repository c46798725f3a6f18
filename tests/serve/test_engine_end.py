"""An engine that failed is not ready while its process ends, and lets nobody in any more."""

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.opening import open_engine
from nemotrt.serve.engine.host import EngineHost
from nemotrt.serve.processes.options import QueueLimits
from nemotrt.wire.frames import encode, read_frames


class Client:
    """One connection to a host, a question at a time."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(20)
        self.frames = read_frames(self.socket)
        self.socket.connect(str(path))

    def ask(self, **frame: Any) -> dict[str, Any]:
        self.socket.sendall(encode(frame))
        return next(self.frames)


def test_while_a_failed_engine_closes(engine_folder: Path, tmp_path: Path, monkeypatch) -> None:
    """Closing may take long: until then its old clients are told, and new ones refused."""
    host = EngineHost(open_engine(engine_folder, OpenOptions(1)), QueueLimits())
    failed, is_closing, may_close = ValueError("no more"), threading.Event(), threading.Event()

    def fail() -> None:
        raise failed

    def close() -> None:
        is_closing.set()
        may_close.wait(20)

    flushed = host._preparation.close  # the connections are still open then
    monkeypatch.setattr(host._preparation, "close", lambda: (close(), flushed()))
    path = tmp_path / "s"
    listener = host.listen(path)
    serving = threading.Thread(target=host.serve, args=(listener,))
    serving.start()
    try:
        client = Client(path)
        ready = client.ask(op="status", id=1)
        assert not ready["is_draining"]
        monkeypatch.setattr(host.loop.scheduler, "step", fail)
        asked = {"text_input": "The", "max_tokens": 3}
        answer = client.ask(op="submit", id=2, inputs=asked)
        while answer.get("op") == "status":
            answer = next(client.frames)
        assert "engine_failed" in str(answer)
        assert is_closing.wait(20) and host.loop.failure is failed
        assert client.ask(op="status", id=3)["is_draining"]
        with socket.socket(socket.AF_UNIX) as other, pytest.raises(ConnectionRefusedError):
            other.connect(str(path))
        client.socket.close()
    finally:
        may_close.set()
        serving.join(20)
    assert not serving.is_alive()
