"""The Dockerfiles: by hadolint and by rule; slow, built over a Debian root and served from."""

import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nemotrt.serve.deploy import compose, kubernetes
from nemotrt.serve.triton.runtime import REQUIREMENTS, find_runtime
from support.images import (
    ROOT,
    Container,
    Instruction,
    Stage,
    build,
    container,
    debian_root,
    is_ignored,
    parse,
)

DEPLOY = ROOT / "serve/deploy"
DOCKERFILES = sorted(DEPLOY.glob("*Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


def stages(dockerfile: Path) -> list[list[Instruction]]:
    found: list[list[Instruction]] = []
    for step in parse(dockerfile.read_text()):
        if step.keyword == "FROM":
            found.append([])
        found[-1].append(step)
    return found


def locked(name: str) -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for package, version in LOCK.findall((DEPLOY / "lock" / f"{name}.txt").read_text()):
        pins.setdefault(canonicalize_name(package), set()).add(version)
    return pins


def test_there_are_the_images_that_the_docs_name() -> None:
    assert [path.name for path in DOCKERFILES] == ["Dockerfile", "tensorrt-llm.Dockerfile"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(dockerfile) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), dockerfile], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_bases_and_packages_are_pinned(dockerfile) -> None:
    named: set[str] = set()
    for stage in stages(dockerfile):
        for step in stage:
            assert step.keyword != "ADD"
            if step.keyword == "FROM":
                base = step.words()[0]
                assert base in named or re.fullmatch(r"[^:@]+:(?!latest).+", base), base
                named.add(step.words()[-1])
            if step.keyword == "RUN":
                for part in step.value.split("&&"):
                    check_installation(part.split())


def check_installation(words: list[str]) -> None:
    """Whether what a shell's line installs is pinned: by version, or by our lock."""
    if words[:2] == ["apt-get", "install"]:
        packages = [word for word in words[2:] if not word.startswith("-")]
        assert packages and all(re.fullmatch(r"[a-z0-9.+-]+=[^*=]+.*", word) for word in packages)
    if "install" in words and any(word.endswith("pip") for word in words):
        assert ("--require-hashes" in words) != (words[-2:] == ["--no-deps", "/opt/dist/*.whl"])
    assert not {"curl", "wget"} & set(words)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_a_served_stage_is_nobody_special_and_runs_what_the_manifests_run(dockerfile) -> None:
    built: dict[str, tuple[str, list[str], list[str]]] = {}
    for stage in stages(dockerfile):
        user, command, health = built.get(stage[0].words()[0], ("0", [], []))
        for step in stage:
            if step.keyword == "USER":
                user = step.value
            if step.keyword in ("CMD", "ENTRYPOINT"):
                assert user == "1000:1000", "USER comes before what runs"
                command = json.loads(step.value)
            if step.keyword == "HEALTHCHECK":
                health = json.loads(step.value.partition(" CMD ")[2])
        built[stage[0].words()[-1]] = (user, command, health)
    served = [stage for stage in built.values() if stage[1]]
    spec = kubernetes.ClusterSpec(name="n", image="i", claim="c")
    pod = kubernetes.deployment(spec)["spec"]["template"]["spec"]["containers"][0]
    assert served and list(built.values())[-1] in served
    for user, command, health in served:
        assert user == "1000:1000"
        assert command == pod["command"]
        assert health == ["python3", "-c", compose.HEALTH]


def test_the_lock_pins_all_that_the_package_asks_for() -> None:
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    wanted = {
        "build": PROJECT["build-system"]["requires"],
        "serve": project["dependencies"] + extras["serve"] + extras["tracing"],
        "rtx-run": extras.get("rtx-run", extras["rtx"]),
    }
    for name, requirements in wanted.items():
        pins = locked(name)
        for requirement in map(Requirement, requirements):
            versions = pins[canonicalize_name(requirement.name)]
            assert all(requirement.specifier.contains(v) for v in versions), requirement
        text = (DEPLOY / "lock" / f"{name}.txt").read_text()
        assert text.count("==") <= text.count("--hash=sha256:")
    for name, versions in locked("rtx-run").items():
        assert locked("serve").get(name, versions) == versions


def test_the_wheelhouse_of_the_docs_has_tritons_runtime() -> None:
    wanted = "--no-deps " + " ".join(f"'{requirement}'" for requirement in REQUIREMENTS)
    for page in ("guides/deploy.md", "guides/gpu-host.md"):
        assert wanted in (ROOT / "docs" / page).read_text(), page


def test_the_context_has_the_package_and_no_secret() -> None:
    for name in (*PROJECT["tool"]["hatch"]["build"]["only-include"], "pyproject.toml", "README.md"):
        assert not is_ignored(name), name
    for name in (".git", ".env", ".venv", ".dev", "tests", "serve/__pycache__"):
        assert is_ignored(name), name


# Slow: built as far as package registries allow. A Debian root stands for the base images.


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for roots, which are too large for pytest to keep."""
    folder = tmp_path_factory.mktemp("images")
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.fixture(scope="module")
def debian(room: Path) -> Path:
    return debian_root(room / "debian")


@pytest.fixture(scope="module")
def images(debian: Path, room: Path) -> dict[str, Stage]:
    return build(DEPLOY / "Dockerfile", debian, room)


def serves(running: Container, stage: Stage, expected: str) -> None:
    """Wait for the image's own health check, then ask for a completion."""
    until_s = time.monotonic() + 300
    while running.inside(stage.health).returncode != 0:
        assert running.process.poll() is None, running.log.read_text()[-3000:]
        assert time.monotonic() < until_s, running.log.read_text()[-3000:]
        time.sleep(0.5)
    body = {"model": "llm", "prompt": "The engine", "max_tokens": 12, "temperature": 0}
    script = (
        "import urllib.request as r; print(r.urlopen(r.Request("
        "'http://127.0.0.1:9000/v1/completions', headers={'Content-Type': 'application/json'}, "
        f"data={json.dumps(body).encode()!r})).read().decode())"
    )
    answer = running.inside(["python3", "-c", script])
    assert answer.returncode == 0, answer.stderr + running.log.read_text()[-3000:]
    assert json.loads(answer.stdout)["choices"][0]["text"] == expected
    written = running.inside(["touch", "/opt/nemotrt/x"])
    assert written.returncode != 0 and "Read-only" in written.stderr
    status = Path(f"/proc/{child_of(running.pid)}/status").read_text()
    assert re.search(r"^Uid:\s1000\s1000\s1000\s1000$", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s0+$", status, re.MULTILINE)


def child_of(pid: int) -> int:
    """Return the server's process: bubblewrap's own init is its parent."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize("target", ["cpu", "rtx"])
def test_the_image_serves_a_completion(images, engine_folder, solo, target) -> None:
    with container(images[target], {"/engine": engine_folder}) as running:
        serves(running, images[target], solo("The engine", max_tokens=12)["text"])


@pytest.mark.slow
def test_the_rtx_image_has_the_compiler_and_the_drivers_door(images) -> None:
    """All but the driver: it compiles a plan without any CUDA base image."""
    build_line = "nemotrt build tiny --gpu a10g -o /tmp/plan -q && test -s /tmp/plan/engine.json"
    images["rtx"].run(build_line, {})
    images["rtx"].run("python3 -c 'from cuda.bindings import driver, nvrtc'", {})


@pytest.mark.slow
def test_a_wheelhouse_stands_for_the_index(images) -> None:
    """guides/deploy.md's lines fill it; the Dockerfile's step then needs no network."""
    image = images["build"]
    text = (ROOT / "docs/guides/deploy.md").read_text()
    lines = re.findall(r"^pip download .*$", text, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        if "rtx-run" not in line:
            image.run(f"/opt/build/bin/{line}", {})
    image.run("rm -rf /opt/build /opt/dist /opt/nemotrt", {})
    [step] = [
        s for stage in stages(DEPLOY / "Dockerfile") for s in stage if "/opt/build" in s.value
    ]
    house = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/src/wheelhouse"}
    image.run(step.value, house, has_network=False)


def lay_out_triton(opt: Path) -> None:
    """Put the runtime's tritonserver where NVIDIA's images have theirs, stub and all."""
    packages = find_runtime().packages.resolve()
    shutil.copytree(packages, opt / "pytriton", symlinks=True)
    server = Path("/opt/pytriton/pytriton/tritonserver")
    links = {"bin/tritonserver": "bin/tritonserver", "caches": "caches"}
    root = packages / "pytriton/tritonserver"
    for path in (find_runtime().backends / "python").iterdir():
        if path.is_symlink():
            source = str(path.resolve().relative_to(root))
            links[f"backends/python/{path.name}"] = re.sub(r"stubs/3\.\d+", "stubs/3.11", source)
    for name, source in links.items():
        link = opt / "tritonserver" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(server / source)


@pytest.mark.slow
@pytest.mark.triton
def test_nvidias_image_keeps_its_python_and_ours_serves(
    debian, room, engine_folder, triton_runtime, solo
) -> None:
    """The stand-in has what is used of NVIDIA's: numpy < 2 for its Python, /opt/tritonserver."""
    base = room / "tritonserver"
    subprocess.run(["cp", "-a", debian, base], check=True)
    packages = "python3 python3-venv python3-pip libpython3.11 g++"
    image = Stage(base)
    image.run(f"apt-get update && apt-get install -y --no-install-recommends {packages}", {})
    image.run("python3 -m pip install --break-system-packages 'numpy<2'", {})
    lay_out_triton(base / "opt")
    found = build(DEPLOY / "tensorrt-llm.Dockerfile", base, room / "beside")
    [last] = [stage for stage in found.values() if stage.command]
    last.run("python3 -c 'import numpy; assert numpy.__version__ < \"2\"'", {})
    with container(last, {"/engine": engine_folder}) as running:
        serves(running, last, solo("The engine", max_tokens=12)["text"])
