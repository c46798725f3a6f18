"""What a command's process gets from outside: closed standard files, and signals to end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PLAN = ["plan", "nemotron-nano-9b-v2", "--gpu", "a10g", "--isl", "128", "--osl", "128"]
HOLD = """
import pathlib, sys, time
import nemotrt.doctor
from nemotrt.cli import main
from nemotrt.files.writing import writing_folder

def hold():
    with writing_folder(pathlib.Path(sys.argv[1])) as folder:
        (folder / "large").touch()
        print("in", flush=True)
        time.sleep(60)

nemotrt.doctor.doctor.callback = lambda **given: hold()
main(["doctor"])
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_file_is_none_that_is_opened_later(closed: str) -> None:
    code = (
        "import sys; from nemotrt.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally:\n"
        "    import os; named = [os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)]\n"
        "    assert len(named) == 3, named\n"
    )
    words = f'exec "$0" -c "$1" {" ".join(PLAN)} {closed}'
    done = subprocess.run(["sh", "-c", words, sys.executable, code], capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_command_that_cleans_up(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"in\n"
        process.send_signal(number)
        said = process.stderr.read().decode()
    assert process.returncode == 128 + number and said.count("\n") == 1, said
    assert list(tmp_path.iterdir()) == []


def test_nohup_holds(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD.replace("60", "0.5"), str(tmp_path / "out")]
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    with subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=ignore) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        os.kill(process.pid, signal.SIGHUP)
    assert process.returncode == 0 and (tmp_path / "out/large").exists()
