"""The libraries of Triton's programs are looked for before a server waits for them."""

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.serve.triton import runtime
from nemotrt.serve.triton.runtime import TritonRuntime, check_libraries


def compiled(folder: Path, name: str) -> TritonRuntime:
    """Return a runtime whose two programs are linked to a library of this name beside them."""
    (folder / "empty.c").write_text("int answer(void) { return 0; }\n")
    (folder / "main.c").write_text("int answer(void); int main(void) { return answer(); }\n")
    made = TritonRuntime(folder)
    library = folder / name
    cc = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", folder / "empty.c", "-o", library]
    subprocess.run(cc, check=True)
    for program in (made.server, made.stub):
        program.parent.mkdir(parents=True)
        rpath = f"-Wl,-rpath,{folder}"
        subprocess.run(["cc", folder / "main.c", library, rpath, "-o", program], check=True)
    return made


def test_all_that_is_there_is_found(tmp_path: Path) -> None:
    check_libraries(compiled(tmp_path, "libanswer.so.1"))


@pytest.mark.parametrize("is_empty", [False, True], ids=["missing", "damaged"])
def test_a_library_that_is_lost_is_named(tmp_path: Path, is_empty: bool) -> None:
    made = compiled(tmp_path, "libanswer.so.1")
    (tmp_path / "libanswer.so.1").unlink()
    if is_empty:
        (tmp_path / "libanswer.so.1").touch()
    with pytest.raises(
        EnvironmentUnfitError, match=r"can't load .*libanswer\.so\.1: .*--no-triton"
    ):
        check_libraries(made)


def test_pythons_own_library_comes_by_its_package(tmp_path: Path) -> None:
    made = compiled(tmp_path, "libpython3.99.so.1.0")
    (tmp_path / "libpython3.99.so.1.0").unlink()
    with pytest.raises(EnvironmentUnfitError, match=r"apt-get install libpython3\.99\)"):
        check_libraries(made)


def test_what_is_no_program_is_left_to_its_start(tmp_path: Path) -> None:
    made = compiled(tmp_path, "libanswer.so.1")
    made.stub.write_text("no program\n")
    check_libraries(made)


def test_install_says_so_at_once(monkeypatch: pytest.MonkeyPatch, triton_runtime: None) -> None:
    """The runtime is whole, and what the system lacks is told before a server waits for it."""
    monkeypatch.setattr(runtime, "_lost", lambda *_: ["libpython3.99.so.1.0"])
    done = CliRunner().invoke(main, ["serve", "install"], env={})
    assert done.exit_code == 3 and "apt-get install libpython3.99" in done.stderr
    done = CliRunner().invoke(main, ["doctor", "--need", "Triton"])
    assert done.exit_code == 3 and "apt-get install libpython3.99" in done.stderr
