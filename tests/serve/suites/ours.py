"""Our server as the suites' adapters start it: one at a time, for the options asked for last."""

import atexit
import os
import subprocess
import tempfile
from pathlib import Path

HOLD = Path(__file__).with_name("hold.py")
STOP_S = 20.0


class Running:
    """The server that runs now."""

    options: tuple[str, ...] | None = None
    address = ""
    held: subprocess.Popen | None = None


def address(options: tuple[str, ...]) -> str:
    """Return the address of a server with these options, started if another or none runs."""
    if Running.options == options:
        return Running.address
    stop()
    command = [os.environ["SUITE_PYTHON"], str(HOLD), os.environ["SUITE_ENGINE"]]
    command += [*os.environ["SUITE_OPTIONS"].split(), *options]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    pipe = subprocess.PIPE
    Running.held = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)
    Running.address = Running.held.stdout.readline().strip()
    if not Running.address:
        stop()
        raise RuntimeError(f"our server did not start with {' '.join(options)}")
    Running.options = options
    return Running.address


@atexit.register
def stop() -> None:
    """End the server that runs, if one does; it ends with its parent too."""
    held, Running.held, Running.options = Running.held, None, None
    if held is None:
        return
    held.stdin.close()
    try:
        held.wait(STOP_S)
    except subprocess.TimeoutExpired:
        held.kill()


def key_file(key: str) -> str:
    """Return the path of a file with an API key, the same for the same key."""
    path = Path(tempfile.gettempdir()) / f"suite-key-{os.getpid()}-{key}"
    path.write_text(key + "\n")
    path.chmod(0o600)
    return str(path)
