"""Peers' source packages: brought from the package index, checked, their tests unpacked to a cache.

Nothing of them is kept in this repository. pip's own finder is asked, since `pip download` would
also run the package's build, which for vLLM wants PyTorch.
"""

import hashlib
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nemotrt.files.user_cache import user_cache
from support.peers import peer_python

FETCH = """
import sys
from pip._internal.commands import create_command

requirement, version, target = sys.argv[1:]
command = create_command("download")
options, _ = command.parse_args(["--no-binary=:all:"])
with command.main_context():
    session = command.get_default_session(options)
    finder = command._build_package_finder(options, session)
    (found,) = (c for c in finder.find_all_candidates(requirement)
                if c.link.is_wheel is False and str(c.version) == version)
    answer = session.get(found.link.url_without_fragment)
    answer.raise_for_status()
    open(target, "wb").write(answer.content)
"""


@dataclass(frozen=True, slots=True)
class Source:
    """A source package, and which folder of it is wanted."""

    package: str
    version: str
    sha256: str
    tests: str  # the folder inside it that is unpacked

    @property
    def root(self) -> str:
        """The folder that the archive's members lie in."""
        return f"{self.package.replace('-', '_')}-{self.version}"


def tests_of(source: Source) -> Path:
    """Return the folder of a peer's tests, downloaded and checked if need be.

    Raises:
        subprocess.CalledProcessError: pip can't bring it; its last lines were printed.
        ValueError: what came is not what was pinned.
    """
    place = user_cache() / f"suites-{source.sha256[:12]}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as name:
            archive = Path(name) / "source.tar.gz"
            wanted = [source.package, source.version, str(archive)]
            python = peer_python("llama-suite")
            subprocess.run([python, "-c", FETCH, *wanted], check=True)
            _unpack(source, archive, Path(name) / "tree")
            (Path(name) / "tree").rename(place)
    return place / source.root / source.tests


def _unpack(source: Source, archive: Path, place: Path) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise ValueError(
            f"{source.package} {source.version} is {digest}, not {source.sha256}: "
            "the index has another file by that name"
        )
    start = f"{source.root}/{source.tests}/"
    with tarfile.open(archive) as tar:
        wanted = [member for member in tar if member.name.startswith(start)]
        tar.extractall(place, wanted, filter="data")
