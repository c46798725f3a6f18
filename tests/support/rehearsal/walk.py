"""Walks docs/guides/gpu-host.md: each command as it stands, on the machine that the page means.

What is changed is in this file: loads and answers are short, and the limits that were planned for
the real models become those of the tiny ones, which a hub serves under the real names.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.rehearsal import guide
from support.rehearsal.driver import make_driver
from support.rehearsal.image import make_image, required
from support.rehearsal.machine import HOME, Done, Machine, host, running

HUB_PORT = 7000
HUB = f"hub {HUB_PORT} nvidia/NVIDIA-Nemotron-Nano-9B-v2=tiny Qwen/Qwen3-8B=tiny-dense"
SHORT = {
    "--preset 8k16k": "--isl 24 --osl 6 -n 4 --seed 1",
    "--preset smoke": "--isl 16 --osl 4 -n 2",
    "--max-tokens 64": "--max-tokens 4",
    "max_tokens=256": "max_tokens=8",
    "evaluate nano-int8": "evaluate nano-int8 --sequences 1",
}
LIMITS = {"max_batch_size": 4, "max_seq_len": 256, "max_num_tokens": 36}
WAIT = "for i in $(seq 600); do python3 -c '{}' 2> /dev/null && exit; sleep 0.2; done; exit 1"
GOES_ON = ("nemotrt serve packed", "nemotrt serve front", "docker run")
PORTS = {"docker run": "8000/v2/health/ready", "nemotrt": "9000/health/ready"}


@dataclass
class Kit:
    """Folders of what the walk needs of a GPU; made once, as nothing in them changes."""

    folder: Path
    gpu: str

    @property
    def has_ahead_of_time(self) -> bool:
        """Whether a laptop compiles for the GPU."""
        return not self.gpu.startswith("h100")

    @property
    def extra(self) -> str:
        """The extra that the page has for the host."""
        return "rtx-run" if self.has_ahead_of_time else "tensorrt"

    def image(self, *extras: str, without: str = "") -> Path:
        """Return what pip installed; made at its first use."""
        folder = self.folder / "-".join(["image", *extras, without])
        if not folder.is_dir():
            make_image(folder, required(extras, ["openai"]) - {without})
        return folder

    @property
    def driver(self) -> Path:
        """The driver's folder."""
        folder = self.folder / f"driver-{self.gpu}"
        return folder if folder.is_dir() else make_driver(folder, self.gpu)

    def home(self, name: str) -> Path:
        """Return a home on this machine's disk; a new one is empty."""
        folder = self.folder / f"home-{name}"
        folder.mkdir(exist_ok=True)
        return folder


@dataclass
class Walk:
    """A walk: what it has done, and how each command ended."""

    kit: Kit
    done: list[tuple[guide.Line, Done]] = field(default_factory=list)
    going_on: list[tuple[int, guide.Line]] = field(default_factory=list)

    @contextmanager
    def laptop(self) -> Iterator[Machine]:
        """Yield a machine without a GPU, from which the host can be reached."""
        home, there = self.kit.home("laptop"), self.kit.home("host")
        seen = host(self.kit.image("rtx", "serve"), home, gpu=None, others={"/gpu-host": there})
        with self._started(running(seen)) as machine:
            yield machine

    @contextmanager
    def host(self) -> Iterator[Machine]:
        """Yield the GPU's host."""
        image = self.kit.image(self.kit.extra, "serve")
        seen = host(image, self.kit.home("host"), gpu=self.kit.driver, others={})
        with self._started(running(seen)) as machine:
            yield machine

    @contextmanager
    def _started(self, starting: Iterator[Machine]) -> Iterator[Machine]:
        with starting as machine:  # type: ignore[attr-defined]
            machine.start(HUB, f"{HOME}/hub.log")
            machine.run(
                f"for i in $(seq 100); do grep -q ready {HOME}/hub.log && exit; sleep 0.1; done"
            )
            for shell in (1, 2):
                machine.run(f"export HF_ENDPOINT=http://127.0.0.1:{HUB_PORT}", shell)
                machine.run("ln -sfn /opt/nemotrt .venv; . .venv/bin/activate", shell)
                for line in of(""):
                    self.do(machine, line, shell)
            yield machine

    def do(self, machine: Machine, line: guide.Line, shell: int = 1, folder: str = "") -> Done:
        """Run a command of the page; one that serves goes on, and this returns when it is ready."""
        text = self.as_run(line.text)
        started_s = time.monotonic()
        if text.startswith(GOES_ON):
            number = machine.start(text, f"{HOME}/{'-'.join(text.split()[:3])}.log", shell)
            self.going_on.append((number, line))
            port = next(port for start, port in PORTS.items() if text.startswith(start))
            url = f'import urllib.request as r; r.urlopen("http://127.0.0.1:{port}")'
            done = machine.run(WAIT.format(url), shell)
            if done.code:
                done = machine.run(f"cat {HOME}/*.log >&2; exit 1", shell)
        else:
            done = machine.run(f"cd {folder}\n{text}\ncd" if folder else text, shell)
        self.done.append((line, done.check()))
        print(f"{time.monotonic() - started_s:6.1f} s  {text.splitlines()[0]}", flush=True)
        return done

    def stop_all(self, machine: Machine) -> None:
        """End what goes on, the last first."""
        while self.going_on:
            number, line = self.going_on.pop()
            machine.stop(number, line.text)

    def as_run(self, text: str) -> str:
        """Return a command as it is run: this GPU's, and short."""
        for long, short in SHORT.items():
            text = text.replace(long, short)
        if self.kit.extra == "tensorrt":
            text = text.replace("[rtx-run,serve]", "[tensorrt,serve]")
        return re.sub(r"(?<=export GPU=)\w+", self.kit.gpu, text)

    def make_limits_small(self, home: str) -> None:
        """Give the planned limits the tiny models' sizes; for whom they were planned stays."""
        for name in ("nano.yaml", "qwen.yaml"):
            path = self.kit.home(home) / name
            text = path.read_text()
            for key, value in LIMITS.items():
                text, count = re.subn(rf"^{key}: .*$", f"{key}: {value}", text, flags=re.MULTILINE)
                assert count == 1, key
            path.write_text(text)


def of(step: str, *words: str) -> list[guide.Line]:
    """Return a step's commands that have one of the words; all of them without words."""
    found = [line for line in guide.lines() if line.step == step]
    return [line for line in found if not words or any(word in line.text for word in words)]
