"""Builds and runs an image without Docker: a Dockerfile's own steps, over a Debian root."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SUITE = "bookworm"
HANG_S = 4 * 3600  # of one step: it compiles and downloads, however busy the machine is


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continued lines joined."""

    keyword: str
    value: str

    def words(self) -> list[str]:
        return shlex.split(self.value)


def parse(text: str) -> list[Instruction]:
    """Return a Dockerfile's instructions; comments within continued lines go, as in BuildKit."""
    lines = [line for line in text.splitlines() if line.strip() and not re.match(r"\s*#", line)]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = [line.strip().split(None, 1) for line in joined.splitlines()]
    return [Instruction(keyword.upper(), " ".join(value.split())) for keyword, value in found]


@dataclass
class Stage:
    """A stage's root and settings, as far as it was built."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    work_folder: str = "/"
    user: str = "0:0"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def run(self, script: str, arguments: dict[str, str], *, has_network: bool = True) -> None:
        """Run a RUN step as root, with the machine's network and its word on certificates."""
        command = ["bwrap", "--bind", str(self.folder), "/", "--dev", "/dev", "--proc", "/proc"]
        command += ["--perms", "1777", "--tmpfs", "/tmp", "--clearenv", "--chdir", self.work_folder]
        command += ["--ro-bind", "/etc/resolv.conf", "/etc/resolv.conf"]
        command += ["--ro-bind", str(CERTIFICATES), "/tmp/certificates"]
        network = {"PIP_CERT": "/tmp/certificates"}
        network |= {name: v for name, v in os.environ.items() if name.lower().endswith("_proxy")}
        command += [] if has_network else ["--unshare-net"]
        for name, value in (network | {"PATH": PATH} | arguments | self.environment).items():
            command += ["--setenv", name, value]
        done = subprocess.run(
            [*command, "/bin/sh", "-c", script], capture_output=True, text=True, timeout=HANG_S
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    def copy(self, words: list[str], stages: dict[str, "Stage"]) -> None:
        """Carry out COPY: of a stage, or of the context."""
        if words[0].startswith("--from="):
            source = stages[words[0].removeprefix("--from=")].folder / words[1].lstrip("/")
            target = self.folder / words[2].lstrip("/")
            shutil.rmtree(target, ignore_errors=True)
            subprocess.run(["cp", "-a", source, target], check=True)
            return
        assert words == [".", "."], words
        target = self.folder / self.work_folder.lstrip("/")
        shutil.copytree(ROOT, target, ignore=_ignored, symlinks=True, dirs_exist_ok=True)


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def ignore_patterns() -> list[str]:
    """Return the lines of .dockerignore that say something."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def is_ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out: by its first part, or a name anywhere (**/NAME)."""
    parts = Path(path).parts
    for pattern in ignore_patterns():
        anywhere = pattern.removeprefix("**/")
        tried = parts if anywhere != pattern else parts[:1]
        if any(fnmatch.fnmatchcase(part, anywhere) for part in tried):
            return True
    return False


def _ignored(folder: str, names: list[str]) -> list[str]:
    relative = Path(folder).relative_to(ROOT)
    return [name for name in names if is_ignored(str(relative / name))]


def debian_root(folder: Path) -> Path:
    """Make a Debian root with debootstrap, from the mirror that this machine has."""
    assert shutil.which("debootstrap") and shutil.which("bwrap"), (
        "apt-get install debootstrap bubblewrap"
    )
    command = ["debootstrap", "--variant=minbase", SUITE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return folder


def build(
    dockerfile: Path, base: Path, folder: Path, arguments: dict[str, str] | None = None
) -> dict[str, Stage]:
    """Build every stage of a Dockerfile over the root `base`, which stands for its base image."""
    folder.mkdir(exist_ok=True)
    stages: dict[str, Stage] = {}
    stage = Stage(base)
    declared: dict[str, str] = {}
    for step in parse(dockerfile.read_text()):
        words = [] if step.keyword in ("RUN", "CMD", "HEALTHCHECK") else step.words()
        match step.keyword:
            case "FROM":
                earlier = stages.get(words[0], Stage(base))
                name = words[2] if len(words) == 3 else str(len(stages))
                stage = Stage(
                    folder / name, dict(earlier.environment), earlier.work_folder, earlier.user
                )
                stage.command, stage.health = earlier.command, earlier.health
                subprocess.run(["cp", "-a", earlier.folder, stage.folder], check=True)
                stages[name], declared = stage, {}
            case "ARG":
                declared |= {k: v for k, v in (arguments or {}).items() if k == words[0]}
            case "RUN":
                stage.run(step.value, declared)
            case "COPY":
                stage.copy(words, stages)
            case "WORKDIR":
                stage.work_folder = words[0]
                (stage.folder / words[0].lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "ENV":
                stage.environment |= dict(word.split("=", 1) for word in words)
            case "USER":
                stage.user = words[0]
            case "CMD":
                stage.command = json.loads(step.value)
            case "HEALTHCHECK":
                stage.health = json.loads(step.value.partition(" CMD ")[2])
            case "EXPOSE":
                pass
            case other:
                raise AssertionError(f"{other}: not known here")
    return stages


@dataclass(frozen=True)
class Container:
    """A running container: its first process, and a door into its namespaces."""

    process: subprocess.Popen[bytes]
    pid: int
    environment: dict[str, str]
    log: Path

    def inside(self, command: list[str], timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as `docker exec` does."""
        door = ["nsenter", "-t", str(self.pid), "--mount", "--net"]
        door += ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]
        return subprocess.run(
            [*door, *command],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )


@contextmanager
def container(stage: Stage, mounts: dict[str, Path]) -> Iterator[Container]:
    """Run a stage's CMD as its user: read-only root, no capabilities, a network of its own."""
    user, group = stage.user.split(":")
    environment = {"PATH": PATH} | stage.environment
    with tempfile.TemporaryDirectory() as folder:
        run_folder = Path(folder) / "run"
        run_folder.mkdir(mode=0o700)
        os.chown(run_folder, int(user), int(group))
        command = ["bwrap", "--ro-bind", str(stage.folder), "/", "--dev", "/dev", "--proc", "/proc"]
        command += ["--perms", "1777", "--tmpfs", "/tmp", "--perms", "1777", "--tmpfs", "/dev/shm"]
        command += ["--bind", str(run_folder), environment["NEMOTRT_RUN_DIR"]]
        for target, source in mounts.items():
            (stage.folder / target.lstrip("/")).mkdir(exist_ok=True)
            command += ["--ro-bind", str(source), target]
        command += ["--unshare-net", "--unshare-pid", "--die-with-parent", "--clearenv"]
        for name, value in environment.items():
            command += ["--setenv", name, value]
        for name in ("SETUID", "SETGID", "SETPCAP"):  # setpriv gives them up
            command += ["--cap-add", f"CAP_{name}"]
        reading, writing = os.pipe()
        command += ["--info-fd", str(writing), "setpriv", f"--reuid={user}", f"--regid={group}"]
        command += ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *stage.command], stdout=output, stderr=output, pass_fds=[writing]
            )
        os.close(writing)
        with os.fdopen(reading) as info:
            pid = json.loads(info.read())["child-pid"]
        try:
            yield Container(process, pid, environment, log)
        finally:
            process.kill()
            process.wait()
