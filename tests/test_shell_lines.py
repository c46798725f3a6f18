"""What others' shells and parsers are given: any path is one word, a name is only a name."""

import json
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.cli import main
from nemotrt.engines.backends.edge_llm import export as edge_backend
from nemotrt.engines.backends.native.library.compiler import find_compiler
from nemotrt.engines.backends.tensorrt_llm.bundle import serve_command
from nemotrt.engines.backends.tensorrt_llm_1_2 import export as trtllm_backend
from nemotrt.engines.runtime.engine import Limits
from nemotrt.profiles.load.target import OpenAiApi
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.runs.aiperf.invocation import arguments
from nemotrt.serve.triton.repository import RepositorySpec, Target, model_config

NAMES = [
    "a b",
    "モデル",
    "-rf",
    "$(touch pwned)",
    "`touch pwned`",
    "a'b\"c",
    "x;y",
    "a\nb",
    "$HOME",
]
PATHS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
LIMITS = Limits(max_batch_size=2, max_seq_len=64, chunk_tokens=32)


@given(PATHS)
def test_the_lines_for_the_gpu_host_hold_any_path_as_one_word(name) -> None:
    folder = Path("/data") / name
    assert shlex.split(trtllm_backend.host_command(folder)) == [str(folder / "build_on_host.sh")]
    edge = edge_backend.host_command(folder).removeprefix("EDGE_LLM=<its checkout> ")
    assert shlex.split(edge) == [str(folder / "build_on_host.sh")]
    for relative in (str(folder), name):
        words = shlex.split(serve_command(relative, Path(name)))
        assert words[0] == "trtllm-serve" and len(words) == 4
        assert words[1].startswith("/") and words[3].startswith("/")  # never an option


@pytest.mark.parametrize("name", NAMES)
def test_the_scripts_find_their_own_folder(tmp_path, name) -> None:
    """By bash and by sh, called from elsewhere and by a relative path, with CDPATH set."""
    folder = tmp_path / name
    folder.mkdir()
    text = trtllm_backend.SCRIPT.format(
        folder="f", model_file="m", tp_size=1, limits=LIMITS, max_num_tokens=1, dtype="d", gemm="g"
    )
    edge = edge_backend.SCRIPT.format(version="0.11", folder="f", limits=LIMITS)
    for script in (text, edge):
        path = folder / "build_on_host.sh"
        head, _, _ = script.partition("exec ")
        path.write_text(head + '\nprintf %s "$here"\n')
        subprocess.run(["bash", "-n", "-c", script], check=True)
        for shell in ("sh", "bash"):
            for argument in (str(path), f"./{name}/build_on_host.sh"):
                done = subprocess.run(
                    [shell, "--", argument] if shell == "bash" else [shell, argument],
                    cwd=tmp_path,
                    env={"PATH": "/usr/bin:/bin", "EDGE_LLM": "/e", "CDPATH": "/:/tmp"},
                    capture_output=True,
                )
                assert done.stdout.decode() == str(folder), done.stderr
    assert not list(tmp_path.rglob("pwned"))


def test_a_version_that_is_no_version_stays_out_of_the_script(tmp_path, monkeypatch) -> None:
    """It is read from a file that another program wrote."""

    def export(exporter: Path, checkpoint: Path, target: Path, report: object) -> Path:
        graph = target / "llm"
        graph.mkdir(parents=True)
        (target / edge_backend.LOG_FILE).write_text("")
        (graph / "config.json").write_text(json.dumps({"edgellm_version": "1\ntouch pwned"}))
        return graph

    monkeypatch.setattr(edge_backend, "find_exporter", lambda: Path("x"))
    monkeypatch.setattr(edge_backend, "export", export)
    monkeypatch.setattr(edge_backend, "check_graph", lambda folder, checkpoint: None)
    checkpoint = SimpleNamespace(path=tmp_path)
    version, _ = edge_backend.write_export(checkpoint, tmp_path, LIMITS)  # type: ignore[arg-type]
    assert version == "unknown"
    assert "pwned" not in (tmp_path / "build_on_host.sh").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_aiperf_takes_any_model_as_a_value(name) -> None:
    api = OpenAiApi("http://x", name, True, {"-H": name}, 1.0, None, {}.copy)  # type: ignore[arg-type]
    paths = (Path("/d"), Path("/t"), Path("/o"))
    words = arguments(api, Workload(8, 8, 1), *paths)
    assert f"--model={name}" in words and f"--header=-H:{name}" in words
    assert name not in words


@pytest.mark.parametrize("name", NAMES)
def test_names_that_a_cluster_can_not_have_are_refused(tiny_engine, name) -> None:
    base = ["serve", "k8s", str(tiny_engine)]
    given = {"--image": "i", "--claim": "c"}
    for option in (
        "--name", "--namespace", "--claim", "--image", "--key-secret", "--gpu-product",
        "--model-name",
    ):  # fmt: skip
        words = [f"{key}={value}" for key, value in (given | {option: name}).items()]
        result = CliRunner().invoke(main, [*base, *words])
        assert result.exit_code == 2, (option, result.output)
        assert result.stdout == ""
    for path in ("/etc", "a/../..", ""):
        words = [*base, "--image=i", "--claim=c", f"--engine-path={path}"]
        assert CliRunner().invoke(main, words).exit_code == 2
    for option in ("--name", "--image", "--model-name"):
        words = ["serve", "compose", str(tiny_engine), "--image=i", f"{option}={name}"]
        assert CliRunner().invoke(main, words).exit_code == 2


@pytest.mark.parametrize("name", NAMES)
def test_compose_mounts_an_engine_of_any_name(tiny_engine, tmp_path, name) -> None:
    engine = tmp_path / name
    engine.symlink_to(tiny_engine)
    words = ["serve", "compose", str(engine), "--image=i"]
    [service] = yaml.safe_load(CliRunner().invoke(main, words).stdout)["services"].values()
    [volume] = service["volumes"]
    assert volume["source"].replace("$$", "") == str(engine).replace("$", "")
    assert volume["source"].replace("$$", "$") == str(engine)  # what compose makes of it


@given(PATHS, st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=4))
def test_the_repository_hands_any_path_over_as_it_is(name, options) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    path = f"/{name}"
    spec = RepositorySpec("llm", Target.CONTAINER, path, name, tuple(options))
    parsed = text_format.Parse(model_config(spec), model_config_pb2.ModelConfig()).parameters
    assert parsed["engine"].string_value == path and parsed["python"].string_value == name
    assert shlex.split(parsed["engine_options"].string_value) == options


def test_a_repository_that_bash_would_read_otherwise_is_noted(tiny_engine, tmp_path) -> None:
    for name, is_noted in [("plain", False), ("a b", True), ("モデル", True)]:
        words = ["serve", "repo", str(tiny_engine), "-o", str(tmp_path / name)]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0 and ("line of bash" in result.stderr) is is_noted
    words = ["serve", "repo", str(tiny_engine), "-o", str(tmp_path / "r"), "--target=container"]
    assert CliRunner().invoke(main, [*words, "--engine-path=-x"]).exit_code == 2


def test_a_compiler_that_is_no_command_is_passed_over(monkeypatch) -> None:
    monkeypatch.setenv("CXX", "c++ 'unclosed")
    assert find_compiler() in (["c++"], ["g++"], ["clang++"], None)
