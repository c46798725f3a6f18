"""A busy machine: seen against work that is really there, said, repeated or refused."""

import json
import os
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.profiles.command import profile
from nemotrt.profiles.hardware import busy
from nemotrt.profiles.hardware.busy import BusyWatch, MachineUse, check_quiet, undisturbed
from nemotrt.profiles.hardware.on_busy import OnBusy
from nemotrt.profiles.runs.record.result import read_result


def use(others=0.0, stolen=0.0, wait=0.0, *, is_engine_here=True, num_cores=2):
    return MachineUse(
        num_cores=num_cores,
        others_cores=others,
        stolen_share=stolen,
        wait_share=wait,
        is_engine_here=is_engine_here,
    )


QUIET, BUSY, WORSE = use(0.05), use(0.5), use(1.5)


def test_work_of_others_is_seen_and_our_own_is_not():
    """Two programs that never rest, on every core that we may use."""
    spin = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    others = [subprocess.Popen(spin, stdout=subprocess.PIPE) for _ in os.sched_getaffinity(0)]
    try:
        [one.stdout.readline() for one in others]
        watch = BusyWatch(is_engine_here=True)
        time.sleep(0.5)
        found = watch.use()
    finally:
        [one.kill() for one in others]
        [one.communicate() for one in others]
    assert found.others_cores > 0.3 * found.num_cores
    assert found.excess > 1 and "other programs used" in found.text
    own_s = time.process_time()
    watch = BusyWatch(is_engine_here=True)
    while time.process_time() - own_s < 0.2:
        pass
    assert watch.use().others_cores < found.num_cores - 0.01 or os.getloadavg()[0] > 1


@given(st.floats(0, 2), st.floats(0, 1), st.floats(0, 5), st.booleans())
def test_what_is_above_a_figure_is_said(others, stolen, wait, is_engine_here):
    found = use(others, stolen, wait, is_engine_here=is_engine_here)
    is_busy = stolen > 0.02 or wait > 0.10 or (is_engine_here and others / 2 > 0.10)
    assert (found.excess > 1) is is_busy
    assert bool(found.text) is is_busy


@pytest.mark.parametrize("is_engine_here", [True, False])
def test_a_system_that_does_not_tell_is_not_called_quiet(is_engine_here):
    others = None if is_engine_here else 0.0  # a server may be one of them: they say nothing
    found = use(others, None, None, is_engine_here=is_engine_here)
    assert "is not known" in found.text
    with pytest.raises(EnvironmentUnfitError, match="is not known"):
        check_quiet(OnBusy.REFUSE, found)


def test_a_server_of_this_machine_is_no_stranger():
    """It is one of the other programs: only what our own threads waited tells."""
    assert use(1.9, is_engine_here=False).text == ""
    text = use(1.9, wait=0.5, is_engine_here=False).text
    assert "other programs, or the server, used 1.9 of 2 cores" in text


@pytest.mark.parametrize(
    ("seen", "policy", "kept", "num_attempts"),
    [
        ([BUSY, QUIET], OnBusy.TELL, BUSY, 1),
        ([QUIET, BUSY], OnBusy.REPEAT, QUIET, 1),
        ([BUSY, QUIET, WORSE], OnBusy.REPEAT, QUIET, 2),
        ([WORSE, BUSY, WORSE, QUIET], OnBusy.REPEAT, BUSY, 3),
    ],
)
def test_the_quietest_counts(seen, policy, kept, num_attempts):
    left = list(seen)
    assert undisturbed(policy, lambda: left.pop(0), lambda found: found) == kept
    assert len(seen) - len(left) == num_attempts


def test_refusing(monkeypatch):
    """Before a measurement, and after one that was disturbed."""
    monkeypatch.setattr(busy, "LOOK_S", 0.0)
    monkeypatch.setattr(BusyWatch, "use", lambda self: QUIET)
    assert undisturbed(OnBusy.REFUSE, lambda: QUIET, lambda found: found) == QUIET
    with pytest.raises(EnvironmentUnfitError, match="other programs used"):
        check_quiet(OnBusy.REFUSE, BUSY)
    monkeypatch.setattr(BusyWatch, "use", lambda self: BUSY)
    with pytest.raises(EnvironmentUnfitError, match="--on-busy refuse"):
        undisturbed(OnBusy.REFUSE, pytest.fail, lambda found: found)
    check_quiet(OnBusy.TELL, BUSY)


@pytest.fixture
def loads(monkeypatch):
    """Make the watches find these loads, one after another."""

    def script(*seen):
        left = list(seen)
        monkeypatch.setattr(BusyWatch, "use", lambda self: left.pop(0))
        monkeypatch.setattr(busy, "LOOK_S", 0.0)
        return left

    return script


def test_profile_says_repeats_and_refuses(engine_folder, tmp_path, loads):
    size = ["--isl", "8", "--osl", "2", "-n", "2", "--no-gpu", "-o", str(tmp_path / "run")]
    command = [str(engine_folder), *size, "--force"]
    loads(BUSY)
    done = CliRunner().invoke(profile, command)
    assert done.exit_code == 0 and "note: This machine was busy" in done.stdout
    assert read_result(tmp_path / "run").machine_use == BUSY
    left = loads(BUSY, QUIET, BUSY)
    done = CliRunner().invoke(profile, [*command, "--on-busy", "repeat"])
    assert done.exit_code == 0 and "busy" not in done.stdout and left == [BUSY]
    loads(BUSY)
    done = CliRunner().invoke(profile, [*command, "--on-busy", "refuse"])
    assert done.exit_code == 3 and "This machine was busy" in done.output
    loads(QUIET, BUSY)
    done = CliRunner().invoke(profile, [*command, "--on-busy", "refuse"])
    assert done.exit_code == 1 and read_result(tmp_path / "run").status == "failed"


def test_a_step_says_it_too(tmp_path, loads):
    from nemotrt.build.engine_builder import BuildSpec, build_engine
    from nemotrt.engines.tiny.models import TINY_MODELS

    build_engine(TINY_MODELS["tiny"], tmp_path / "e", BuildSpec(backend="native"))
    command = ["engine", str(tmp_path / "e"), "--steps", "2"]
    loads(BUSY, QUIET)
    done = CliRunner().invoke(profile, command)
    assert done.exit_code == 0 and "This machine was busy" in done.stdout.replace("\n", " ")
    done = CliRunner().invoke(profile, [*command, "--json"])
    assert json.loads(done.stdout)["machine_use"]["others_cores"] == 0.05
    loads(QUIET, BUSY)
    done = CliRunner().invoke(profile, [*command, "--on-busy", "refuse"])
    assert done.exit_code == 3 and "This machine was busy" in done.output
