"""Hosts that lack what every host has: one line names the cure before long work, or it works."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nemotrt.needs import CUDA_13_DRIVER
from support.rehearsal.machine import HOME
from support.rehearsal.namespace import Access, Mount, Namespace
from support.rehearsal.trials import (
    CHECK,
    GENERATE,
    check_cure,
    has_cure,
    run,
    served,
    with_driver,
    with_mount,
)
from support.rehearsal.walk import Walk

Change = Callable[[Namespace], Namespace]
OPENSHIFT = (1000650000, 0)  # a user of the project's range, without a line in /etc/passwd
OLD_DRIVER = ("old", "570.211.01", 12080)


def same(whole: Namespace) -> Namespace:
    return whole


def without_tmp(whole: Namespace) -> Namespace:
    return whole.without_mount("/tmp")


def with_closed_tmp(whole: Namespace) -> Namespace:
    return with_mount(whole, "/tmp", Mount(Access.MEMORY, mode="0555"))


def with_small_tmp(whole: Namespace) -> Namespace:
    return with_mount(whole, "/tmp", Mount(Access.MEMORY, None, 4096, "1777"))


def without_proc(whole: Namespace) -> Namespace:
    return replace(whole, has_proc=False)


def with_closed_shared_memory(whole: Namespace) -> Namespace:
    return with_mount(whole, "/dev/shm", Mount(Access.READ, Path("/usr/share")))


FULL = "head -c 9999 /dev/zero > /tmp/all 2> /dev/null; "
TAKEN = """python3 -c '
import socket, time
held = socket.create_server(("127.0.0.1", 9000))
print(flush=True)
time.sleep(60)' | { read -r; nemotrt serve packed-nano; }"""
REFUSED: dict[str, tuple[Change, str, str]] = {
    "no /tmp": (without_tmp, served(), "docker run --tmpfs /tmp"),
    "/tmp read-only": (with_closed_tmp, served(), "docker run --tmpfs /tmp"),
    "/tmp full": (with_small_tmp, FULL + served(), "docker run --tmpfs /tmp"),
    "/dev/shm read-only": (with_closed_shared_memory, served(), "--shm-size 1g"),
    "few files": (same, "ulimit -n 64; " + served(), "ulimit -n 4096"),
    "few files, no Triton": (same, "ulimit -n 64; " + served("packed-nano", "--no-triton"), "-n 4"),
    "no /proc": (without_proc, served(), "mount -t proc proc /proc"),
    "a checkpoint of nobody": (
        lambda whole: whole.without_variable("HOME"),
        "nemotrt inspect owner/name",
        "set HF_HOME",
    ),
    "a port that is taken": (same, TAKEN, "give another port, or 0 for a free one"),
    "bytes of no locale": (
        lambda whole: whole.with_variables(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
        "nemotrt generate packed-nano été --max-tokens 2",
        "LC_ALL=C.UTF-8",
    ),
}


QUICK = ("no /tmp", "few files", "a checkpoint of nobody")


@pytest.mark.parametrize(
    "what",
    [w if w in QUICK else pytest.param(w, marks=pytest.mark.slow) for w in REFUSED],
)
def test_what_it_lacks_is_said_with_the_cure(what: str, whole: Namespace) -> None:
    """Nothing was started or built for it: the line is all there is."""
    change, script, cure = REFUSED[what]
    done = run(change(whole), script)
    check_cure(done, cure)
    assert done.code in (2, 3) and "is up" not in done.errors, done.text


@pytest.mark.parametrize("script", [GENERATE, pytest.param(CHECK, marks=pytest.mark.slow)])
def test_an_old_driver(script: str, whole: Namespace, sent: Walk) -> None:
    """CUDA says that it is insufficient; the line says which one suffices."""
    done = run(with_driver(whole, sent.kit, *OLD_DRIVER), script)
    check_cure(done, f"CUDA 13 needs driver {CUDA_13_DRIVER} or later")
    assert done.code == 3


def test_doctor_and_inspect_on_an_old_driver(whole: Namespace, sent: Walk) -> None:
    old = with_driver(whole, sent.kit, *OLD_DRIVER)
    cure = f"CUDA 13 needs {CUDA_13_DRIVER} or later; update NVIDIA's driver and restart"
    check_cure(run(old, "nemotrt doctor"), f"the driver 570.211.01 is too old: {cure}")
    assert (
        f"the driver (CUDA 12.8) is too old: {cure}"
        in run(old, "nemotrt inspect packed-nano").output
    )


def test_doctor_tells_what_a_server_lacks(whole: Namespace) -> None:
    for change, cure in ((without_tmp, "--tmpfs /tmp"), (with_closed_shared_memory, "--shm-size")):
        check_cure(run(change(whole), "nemotrt doctor --need 'serve with Triton'"), cure)


def without_home(whole: Namespace) -> Namespace:
    return whole.without_variable("HOME")


def with_closed_home(whole: Namespace) -> Namespace:
    held = whole.mounts[HOME]
    return with_mount(whole, HOME, Mount(Access.READ, held.source))


def as_openshift(whole: Namespace) -> Namespace:
    return replace(with_closed_home(whole), user=OPENSHIFT).with_variables(HOME="/")


SERVES: dict[str, tuple[Change, str]] = {
    "no HOME": (without_home, ""),
    "HOME read-only": (with_closed_home, "Set XDG_CACHE_HOME"),
    "a user of nobody": (as_openshift, "Set XDG_CACHE_HOME"),
    "soft limit of files": (same, ""),
    "C locale": (lambda whole: whole.with_variables(LC_ALL="C"), ""),
}


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize("what", SERVES)
def test_it_serves_without_what_it_can_do_without(what: str, whole: Namespace) -> None:
    """A cache that can't be kept is said; the rest has no say in it."""
    change, note = SERVES[what]
    limit = "ulimit -S -n 64; " if "files" in what else ""
    for script in (GENERATE, limit + served()):
        done = run(change(whole), script).check()
    assert has_cure(done, note) or has_cure(run(change(whole), GENERATE), note), done.text


def test_what_a_strict_umask_wrote_is_no_containers(whole: Namespace) -> None:
    """It runs here; a container's user could not read it."""
    script = "umask 077; cp -r packed-nano /tmp/closed; chmod -R go= /tmp/closed; "
    run(whole, f"{script} nemotrt generate /tmp/closed hi --max-tokens 2").check()
    done = run(
        replace(whole, user=(2000, 2000)), f"{script} nemotrt serve compose /tmp/closed --image x"
    )
    check_cure(done, "chmod -R a+rX /tmp/closed")
