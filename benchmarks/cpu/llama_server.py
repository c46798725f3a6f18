"""llama.cpp's server for the length of a `with` block, with the settings that serve agents best."""

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import llama_build

# Source: llama.cpp, tools/server/README.md. States are kept as checkpoints at the starts of user
# messages and near the end of prompts: by default 32 a slot, 8,192 tokens apart, which keeps most
# turns from finding one. What a slot held goes to `--cache-ram` when another conversation takes it.
# By default a conversation takes the slot of one that begins alike, and with a shared block all do;
# without that, each finds its own in the cache (of 4 agents in turn 99.9 % of what is cachable was
# found, with the default 85 %). `--cache-reuse` shifts keys and values, `--swa-full` is of sliding
# windows: neither is for a recurrent state.
SETTINGS = {
    "--ctx-checkpoints": "64",
    "--checkpoint-min-step": "64",
    "--cache-ram": "8192",
    "--slot-prompt-similarity": "0.0",
    "--batch-size": "512",
    "--ubatch-size": "512",
}
START_TIMEOUT_S = 600.0
POLL_S = 0.2


@contextmanager
def serve_llama(
    model: Path,
    num_slots: int,
    max_seq_len: int,
    num_threads: int,
    log: Path,
    settings: Mapping[str, str] = SETTINGS,
) -> Iterator[str]:
    """Yield the address of a ready llama-server; its log is kept.

    Raises:
        SystemExit: it did not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    options = dict(settings) | {"--parallel": str(num_slots)}
    options |= {"--ctx-size": str(num_slots * max_seq_len)}
    options |= {"--threads": str(num_threads), "--threads-batch": str(num_threads)}
    command = [str(llama_build.server_program()), "--model", str(model), "--port", str(port)]
    command += [
        "--host",
        "127.0.0.1",
        "--jinja",
        *(w for pair in options.items() for w in pair if w),
    ]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return when the server says that it is well."""
    end_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_S)
    lines = log.read_text(errors="replace").splitlines()[-8:]
    raise SystemExit("llama-server did not start:\n" + "\n".join(lines))
