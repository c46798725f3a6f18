"""Tries of one command on a host that lacks something, and what is to be read then."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from support.rehearsal import driver
from support.rehearsal.image import PREFIX
from support.rehearsal.machine import Done, running
from support.rehearsal.namespace import Access, Mount, Namespace
from support.rehearsal.walk import Kit

GENERATE = "nemotrt generate packed-nano hi --max-tokens 2"
CHECK = "nemotrt check packed-nano"
PROFILE = "nemotrt profile run packed-nano --isl 8 --osl 2 -n 1 -o /tmp/run"
EXTRAS = ("rtx-run", "serve")
DRIVER = "Install NVIDIA's driver, or give the container its GPU"
# Serves until it is ready, then ends it as Ctrl-C does; the code is 0, or that of its failure.
SERVE_ONCE = """
coproc SERVER {{ exec {} 2>&1; }}
exec 3<&"${{SERVER[0]}}"; number=$SERVER_PID
while read -r -u 3 line; do
  echo "$line" >&2
  case "$line" in OpenAI*) kill -INT "$number" ;; esac
done
wait "$number"; code=$?
[ $code = 130 ] || exit $code"""


def served(engine: str = "packed-nano", *options: str) -> str:
    """Return the script that serves an engine until it is ready."""
    words = ["timeout", "-s", "INT", "120", "nemotrt", "serve", engine, "--free-ports", *options]
    return SERVE_ONCE.format(" ".join(words))


def run(namespace: Namespace, script: str) -> Done:
    """Run a command in a namespace of its own."""
    line = namespace.command(["bash", "-c", f". {PREFIX}/bin/activate; {script}"])
    done = subprocess.run(line, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return Done(script, done.returncode, done.stdout, done.stderr)


def with_mount(namespace: Namespace, target: str, mount: Mount) -> Namespace:
    """Return a namespace with another mount at a place."""
    return namespace.with_mounts({target: mount})


def with_driver(namespace: Namespace, kit: Kit, name: str, *told: Any) -> Namespace:
    """Return the host with another driver, as `make_driver` is told of it."""
    folder = kit.folder / f"driver-{name}"
    if not folder.is_dir():
        driver.make_driver(folder, kit.gpu, *told)
    return with_mount(namespace, str(driver.PLACE), Mount(Access.READ, folder))


def without_file(namespace: Namespace, kit: Kit, name: str) -> Namespace:
    """Return the host, whose driver came without one of its libraries."""
    folder = kit.folder / f"driver-without-{name}"
    if not folder.is_dir():
        shutil.copytree(kit.driver, folder)
        (folder / "lib" / name).unlink()
    return with_mount(namespace, str(driver.PLACE), Mount(Access.READ, folder))


def without_package(namespace: Namespace, kit: Kit, name: str) -> Namespace:
    """Return the host, where pip did not install a package."""
    image = kit.image(*EXTRAS, without=name)
    return with_mount(namespace, str(PREFIX), Mount(Access.READ, image))


def has_cure(done: Done, cure: str) -> bool:
    """Whether one line of what a command says has the cure."""
    assert "Traceback" not in done.errors, done.text
    return any(cure in line for line in done.errors.splitlines())


def check_cure(done: Done, cure: str) -> None:
    """Whether a command failed, and one line of what it says has the cure."""
    assert done.code not in (0, 124), done.text
    assert has_cure(done, cure), done.text


def up(whole: Namespace, home: Path, found: dict[str, Any], before: str = "") -> Done:
    """Start a compose file's service on a host with the port free, and end it again."""
    (home / "compose.yaml").write_text(yaml.safe_dump(found))
    with running(whole) as machine:
        machine.run(f". {PREFIX}/bin/activate\n{before}")
        done = machine.run("docker compose up --detach --wait")
        if done.code == 0:
            machine.run("docker compose down").check()
    return done
