"""The AIPerf process: started, interrupted, and what it said last."""

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path

from nemotrt import needs
from nemotrt.errors import ChildProcessFailedError, EnvironmentUnfitError

INTERRUPT_TIMEOUT_S = 60.0  # it writes its exports before it goes
NUM_LINES = 3
MAX_LINE_CHARS = 400
# It takes a folder for a name on the Hub if these are set.
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def find_aiperf(name: str) -> str:
    """Return the path of the program `name`; raises EnvironmentUnfitError if there is none."""
    found = shutil.which(name)
    if found is None:
        raise EnvironmentUnfitError(
            f"{name!r} is not installed: `{needs.pip_install('aiperf')}` (1.2 GB) in an "
            "environment of its own, and give --aiperf ENVIRONMENT/bin/aiperf."
        )
    return found


async def run_aiperf(command: list[str], log: Path) -> None:
    """Run to the end; a cancelled task interrupts AIPerf and lets it write what it has.

    Raises:
        ChildProcessFailedError: it ended with another code than 0.
    """
    environment = {name: value for name, value in os.environ.items() if name not in OFFLINE}
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C on the terminal is ours to pass on
            preexec_fn=_heed_interrupts,
        )
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _interrupt(process)
            raise
        finally:
            _kill_group(process.pid)
    if code:
        text = log.read_text(encoding="utf-8", errors="replace")
        raise ChildProcessFailedError(f"AIPerf failed with code {code}:\n{_reason(text)}")


def _reason(text: str) -> str:
    """Return the first errors in AIPerf's log, or its last lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line[:MAX_LINE_CHARS] for line in lines if " ERROR " in line]
    return "\n".join(errors[:NUM_LINES] or lines[-NUM_LINES:])


def _heed_interrupts() -> None:
    """Let the process be interrupted: what a shell starts with `&` ignores it, and so do heirs."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def _interrupt(process: asyncio.subprocess.Process) -> None:
    """Ask the process to end, and wait for it a while."""
    process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), INTERRUPT_TIMEOUT_S)
    except TimeoutError:
        _kill_group(process.pid)
        await process.wait()


def _kill_group(group: int) -> None:
    """End what is left of the process and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
