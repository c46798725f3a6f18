"""A machine that runs: a namespace with an agent inside, and shells whose exports last."""

import itertools
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

from support.rehearsal import driver
from support.rehearsal.image import OWN, PREFIX, shown
from support.rehearsal.namespace import PATH, SHARED_MEMORY, Access, Mount, Namespace, system

HOME = "/home/user"
PROGRAMS = PREFIX / OWN / "support/rehearsal/programs"
TIMEOUT_S = 600
SHARED_MEMORY_BYTES = 1 << 30


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    script: str
    code: int
    output: str
    errors: str

    def check(self) -> "Done":
        """Return it if it ended well."""
        assert self.code == 0, self.text
        return self

    @property
    def text(self) -> str:
        """All of it, for a person."""
        return f"{self.script}\n-> {self.code}\n{self.output[-6000:]}\n{self.errors[-6000:]}"


class Machine:
    """A running namespace; its shells are numbered."""

    def __init__(self, process: "subprocess.Popen[str]", namespace: Namespace) -> None:
        self._process, self._namespace = process, namespace
        self._numbers = itertools.count()
        self._answers: dict[int, Queue[dict[str, Any]]] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            self._answers[told["id"]].put(told)

    def _ask(self, **request: Any) -> int:
        number = next(self._numbers)
        self._answers[number] = Queue()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, **request}) + "\n")
        self._process.stdin.flush()
        return number

    def run(self, script: str, shell: int = 1, timeout_s: float = TIMEOUT_S) -> Done:
        """Run commands in a shell, and wait."""
        return self.wait(self._start(script, shell, timeout_s), script, timeout_s)

    def start(self, script: str, log: str, shell: int = 1) -> int:
        """Start a command that goes on, in a copy of a shell; return its number."""
        return self._start(script, shell, TIMEOUT_S * 10, log=log)

    def stop(self, number: int, script: str = "") -> Done:
        """End what goes on, as Ctrl-C does, and wait."""
        self._ask(stop=number)
        return self.wait(number, script)

    def wait(self, number: int, script: str, timeout_s: float = TIMEOUT_S) -> Done:
        """Wait for what was started."""
        told = self._answers[number].get(timeout=timeout_s + 60)
        return Done(script, told["code"], told["output"], told["errors"])

    def _start(self, script: str, shell: int, timeout_s: float, log: str = "") -> int:
        state = f"/tmp/.shell-{shell}"
        whole = f"set -e\n[ ! -f {state} ] || . {state}\n{script}\nexport -p > {state}"
        if log:
            whole = f"[ ! -f {state} ] || . {state}\nexec {script}"
        environment = self._namespace.environment
        return self._ask(script=whole, environment=environment, timeout_s=timeout_s, log=log)


@contextmanager
def running(namespace: Namespace) -> Iterator[Machine]:
    """Yield a machine; all that runs in it ends with the block."""
    program = [str(PREFIX / "bin/python3"), str(PREFIX / OWN / "support/rehearsal/agent.py")]
    line = namespace.command(program)
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Machine(process, namespace)
        finally:
            process.kill()


def host(image: Path, home: Path, *, gpu: Path | None, others: dict[str, Path]) -> Namespace:
    """Return what a host shows: the system, what pip installed, a home, the driver if it has one.

    Args:
        image: what pip installed.
        home: the user's folder, which may be written.
        gpu: the driver's folder.
        others: further folders by place, such as another host's that can be written to.
    """
    mounts = installed(image)
    mounts["/tmp"] = Mount(Access.MEMORY, mode="1777")
    mounts[SHARED_MEMORY] = Mount(Access.MEMORY, None, SHARED_MEMORY_BYTES, "1777")
    mounts[HOME] = Mount(Access.WRITE, home)
    mounts |= {place: Mount(Access.WRITE, folder) for place, folder in others.items()}
    environment = {"PATH": f"{PROGRAMS}:{PATH}", "HOME": HOME}
    if gpu is not None:
        mounts[str(driver.PLACE)] = Mount(Access.READ, gpu)
        environment |= driver.environment()
    return Namespace(mounts, environment, HOME)


def installed(image: Path) -> dict[str, Mount]:
    """Return the system's mounts and an image's."""
    mounts = system() | {str(folder): Mount(Access.READ, folder) for folder in shown()}
    mounts[str(PREFIX)] = Mount(Access.READ, image)
    return mounts
