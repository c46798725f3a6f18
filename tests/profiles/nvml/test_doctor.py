"""`nemotrt doctor` over a scripted NVML and over packages that lie on the module path."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from nemotrt import machine
from nemotrt.cli import main
from nemotrt.files import memory
from nemotrt.serve.triton import server

RUN, ORDINARY = "run plans here (tensorrt)", "compile and run plans with ordinary TensorRT here"
# A distribution, its version, and the modules that it brings.
PRESENT = {
    "cuda-python": ("13.4.4", ("cuda/bindings",)),
    "tensorrt": ("11.4.0.106", ("tensorrt",)),
}
Host = Callable[..., None]


@pytest.fixture
def host(nvml_script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Return a function that scripts a GPU host with packages; the A10G with driver 580."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "cuda", raising=False)  # of another test's folder
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def write(packages: dict[str, tuple[str, tuple[str, ...]]] = PRESENT, **script: str) -> None:
        for name, (version, modules) in packages.items():
            info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
            info.mkdir()
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            (info / "METADATA").write_text(text)
            for module in modules:
                (folder / module).mkdir(parents=True)
                (folder / module / "__init__.py").touch()
        nvml_script(**{"0.compute_capability": "86", **script})

    return write


def doctor(*arguments: str, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(main, ["doctor", "--json", *arguments])
    assert result.exit_code == code, result.output
    found = json.loads(result.stdout)
    assert (code == 3) == ("can't do all that it should" in result.stderr)
    return found


def line(found: dict[str, Any], words: str) -> SimpleNamespace:
    [ability] = [item for item in found["abilities"] if words in item["name"]]
    return SimpleNamespace(**ability)


def test_a_host_that_has_all_of_it(host: Host) -> None:
    host()
    found = doctor("--need", RUN, "--need", "ordinary TensorRT")
    assert (found["driver"], found["gpus"][0]["name"]) == ("580.95.05", "A10G")
    for words in (RUN, ORDINARY, "measure the GPU (NVML)"):
        assert line(found, words).is_usable is True
    shown = CliRunner().invoke(main, ["doctor"]).stdout
    assert f"yes     {RUN}\n" in shown and "driver     580.95.05" in shown


def test_without_a_driver_nothing_is_broken(nvml_script: Any) -> None:
    nvml_script(init="9")
    found = doctor()
    assert found["driver"] is None
    assert line(found, RUN).is_usable is False
    assert "pip install 'nemotrt[rtx-run]'" in line(found, RUN).hint
    assert "not loaded" in line(found, RUN).hint
    assert "run plans here" in CliRunner().invoke(main, ["doctor", "--need", RUN]).stderr
    doctor("--need", RUN, code=3)


def test_without_tensorrt_no_plan_runs(host: Host) -> None:
    """CUDA and a GPU are not enough: ordinary TensorRT is not here, and is asked for by name."""
    host({"cuda-python": PRESENT["cuda-python"]})
    found = doctor()
    assert line(found, ORDINARY).is_usable is False
    assert line(found, ORDINARY).hint == "pip install 'nemotrt[tensorrt]'"


@pytest.mark.parametrize("driver", ["579.99", "570.211.01", "535.161.08"])
def test_an_old_driver(driver: str, host: Host) -> None:
    host(driver=driver)
    found = doctor(code=3)
    assert line(found, RUN).is_usable is False and line(found, RUN).is_broken
    assert f"the driver {driver} is too old: CUDA 13 needs 580 or later" in line(found, RUN).hint
    assert line(found, "measure the GPU").is_usable is True


def test_a_driver_that_does_not_tell(host: Host) -> None:
    host(driver="!3")
    found = doctor()
    assert line(found, RUN).is_usable is None and "580 is needed" in line(found, RUN).hint
    assert f"unknown {RUN}" in CliRunner().invoke(main, ["doctor"]).stdout
    doctor("--need", RUN, code=3)


def test_a_gpu_that_does_not_tell(host: Host) -> None:
    host(**{"0.compute_capability": "!3"})
    found = doctor()
    assert line(found, RUN).is_usable is None
    assert line(found, ORDINARY).is_usable is None


def test_an_h100_runs_what_ordinary_tensorrt_compiles_there(host: Host) -> None:
    host(**{"0.compute_capability": "90"})
    found = doctor()  # TensorRT for RTX still compiles for others: nothing is broken
    doctor("--need", RUN, code=3)
    assert line(found, ORDINARY).is_usable is True
    assert "compiles for 8.0, 8.6, 8.9, not 9.0" in line(found, RUN).hint
    assert "pip install 'nemotrt[tensorrt]'" in line(found, RUN).hint


def test_a_gpu_before_bfloat16(host: Host) -> None:
    host(**{"0.compute_capability": "75"})
    assert "7.5 is below 8.0" in line(doctor(), ORDINARY).hint


@pytest.mark.parametrize(
    ("visible", "usable"), [(None, True), ("0", True), ("1", False), ("", None), ("7", None)]
)
def test_of_two_gpus_the_one_that_cuda_sees(
    visible: str | None, usable: bool | None, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An A10G and an H100."""
    host(gpus="2", **{"1.name": "H100", "1.compute_capability": "90"})
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    result = CliRunner().invoke(main, ["doctor", "--json"])
    found = json.loads(result.stdout)
    assert [gpu["name"] for gpu in found["gpus"]] == ["A10G", "H100"]
    assert line(found, RUN).is_usable is usable
    assert result.exit_code == 0


def test_a_gpu_in_mig_mode_is_shared_out(host: Host) -> None:
    host(**{"0.mig_mode": "1"})
    found = doctor()
    assert "GPU 0 is in MIG mode" in found["gpu_note"]
    host({}, **{"0.mig_mode": "0"})
    assert doctor()["gpu_note"] == ""


@pytest.mark.parametrize("version", ["12.9.10", "14.0.0"])
def test_a_package_outside_its_bounds(version: str, host: Host) -> None:
    host({"cuda-python": (version, ("cuda/bindings",))})
    found = doctor(code=3)
    assert f"cuda-python {version} is here, cuda-python>=13,<14 is needed" in line(found, RUN).hint
    [package] = [item for item in found["packages"] if item["name"] == "cuda-python"]
    assert (package["version"], package["install"]) == (version, "pip install 'nemotrt[rtx-run]'")


def test_a_package_without_its_module(host: Host) -> None:
    host({"cuda-python": ("13.4.4", ())})
    assert "is here without its module cuda.bindings" in line(doctor(code=3), RUN).hint


def test_tensorrt_10_15_makes_no_plugins(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host(PRESENT | {"tensorrt": ("10.15.1.29", ("tensorrt",))})
    found = doctor()
    assert line(found, ORDINARY).is_usable is True
    wanted = "take 10.16 or later: pip install 'nemotrt[tensorrt]' 'tensorrt>=10.16'"
    assert wanted in line(found, "Mamba plugins").hint


def test_a_wrong_need_lists_what_there_is() -> None:
    result = CliRunner().invoke(main, ["doctor", "--need", "fly"])
    assert result.exit_code == 2
    assert "'fly'" in result.stderr and f"'{RUN}'" in result.stderr


def test_each_call_that_fails_gives_no_false_yes(host: Host) -> None:
    """The N-th NVML call fails, for every N: what hangs on it is no or unknown, never yes."""
    host()
    whole = doctor()
    for nth in range(24):
        host({}, nth=f"{nth} 999")
        result = CliRunner().invoke(main, ["doctor", "--json"])
        assert result.exit_code in (0, 3) and "Traceback" not in result.output, nth
        found = json.loads(result.stdout)
        if line(found, RUN).is_usable:
            assert found["driver"] == whole["driver"]
            assert found["gpus"]


# Room.


def test_disks_that_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shutil.disk_usage("/")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: whole._replace(free=1 << 20))
    found = doctor()
    folder = line(found, "hold a 9B checkpoint")
    assert not folder.is_usable and "0.0 GiB free, of the 16.6 GiB" in folder.hint
    assert "XDG_CACHE_HOME" in line(found, "in the cache").hint
    assert "--shm-size" in line(found, "Triton").hint


def test_a_disk_that_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(server, "SHARED_MEMORY", tmp_path / "no" / "shm")
    triton = line(doctor(), "Triton")
    assert triton.is_usable is False
    assert "which Triton's stubs want" in triton.hint or "no Triton runtime" in triton.hint

    def fail(path: object) -> Any:
        raise OSError("stale file handle")

    monkeypatch.setattr(machine.shutil, "disk_usage", fail)
    folder = line(doctor(), "hold a 9B checkpoint")
    assert folder.is_usable is None and "stale file handle" in folder.hint


@pytest.mark.parametrize(("limit", "usable"), [("8589934592", False), ("max", None)])
def test_a_container_s_memory_is_what_counts(
    limit: str, usable: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "memory.max"
    path.write_text(f"{limit}\n")
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    found = doctor()
    if usable is False:
        assert found["memory_bytes"] == int(limit)
        assert "there are 8.0 GiB of memory" in line(found, "int8-wo on the CPU").hint
    else:
        assert found["memory_bytes"] > 0


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert "no home: set XDG_CACHE_HOME" in line(doctor(), "in the cache").hint
