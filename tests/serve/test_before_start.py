"""What can be checked before the engine starts is: one line, and its exit code."""

import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from nemotrt.cli import main


def write_pair(folder: Path, name: str, password: str = "") -> tuple[Path, Path]:
    """Write a self-signed certificate and its key."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    lock = ["-passout", f"pass:{password}"] if password else ["-nodes"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "1", *lock]
    command += ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def serve(engine_folder: Path, tmp_path: Path, *options: object, front: bool = False):
    words = ["serve", *(["front"] if front else []), str(engine_folder)]
    if not front:
        words += ["--free-ports", "--no-triton", "--run-dir", str(tmp_path / "r")]
    return CliRunner().invoke(main, [*words, *map(str, options)])


def check(result, code: int, message: str) -> None:
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert message in result.output and len(result.output.splitlines()) == 1


@pytest.mark.parametrize("front", [False, True], ids=["serve", "front"])
def test_tls_files(engine_folder, tmp_path, front) -> None:
    certificate, key = write_pair(tmp_path, "one")
    _, other = write_pair(tmp_path, "two")
    _, locked = write_pair(tmp_path, "three", "secret")
    text, binary = tmp_path / "text", tmp_path / "binary"
    text.write_text("no PEM\n")
    binary.write_bytes(bytes(range(256)))
    cases = [
        (certificate, other, "is not that of the certificate"),
        (certificate, locked, "is encrypted"),
        (certificate, text, "no certificate and key in PEM"),
        (certificate, binary, "no certificate and key in PEM"),
        (text, key, "no certificate and key in PEM"),
        (key, certificate, "no certificate and key in PEM"),
        (certificate, tmp_path, "can't be read"),
        (tmp_path / "none", key, "can't be read"),
    ]
    for first, second, message in cases:
        options = ("--tls-certificate", first, "--tls-key", second)
        check(serve(engine_folder, tmp_path, *options, front=front), 2, message)
    one = serve(engine_folder, tmp_path, "--tls-key", key, front=front)
    check(one, 2, "needs both")


def test_a_pair_that_fits_is_taken(engine_folder, tmp_path) -> None:
    certificate, key = write_pair(tmp_path, "one")
    options = ("--tls-certificate", certificate, "--tls-key", key, "--dry-run")
    result = serve(engine_folder, tmp_path, *options)
    assert result.exit_code == 0 and "https://127.0.0.1" in result.output


def test_api_keys(engine_folder, tmp_path) -> None:
    keys = tmp_path / "keys"
    for content, message in [(b"\xff\xfe", "is not UTF-8"), (b"# none\n", "has no API key")]:
        keys.write_bytes(content)
        keys.chmod(0o600)
        check(serve(engine_folder, tmp_path, "--api-key-file", keys), 2, message)


@pytest.mark.parametrize("front", [False, True], ids=["serve", "front"])
def test_to_share_prefixes_needs_keys(engine_folder, tmp_path, front, monkeypatch) -> None:
    monkeypatch.delenv("NEMOTRT_API_KEYS", raising=False)
    options = ("--port", "0", "--share-prefixes")
    check(serve(engine_folder, tmp_path, *options, front=front), 2, "--share-prefixes is for API")


def test_more_memory_than_there_is(engine_folder, tmp_path) -> None:
    found = serve(engine_folder, tmp_path, "--prefix-cache-gib", 1e6)
    check(found, 2, "--prefix-cache-gib 1e+06 is more than the memory here")


@pytest.mark.parametrize("host", ["no such host", "x" * 70 + ".example", "256.0.0.1"])
def test_a_host_that_is_none(engine_folder, tmp_path, host) -> None:
    check(serve(engine_folder, tmp_path, "--host", host), 3, "cannot use")


def test_a_run_folder_that_can_not_be_written(engine_folder, tmp_path) -> None:
    (tmp_path / "r").write_text("a file")
    check(serve(engine_folder, tmp_path), 3, "can't be written")
    check(serve(engine_folder, tmp_path, "--run-dir", "/proc/x"), 3, "can't be written")


@pytest.mark.parametrize("name", ["-x", ".", "..", "a b", "モデル", "a/b", "$(touch x)", "", "²"])
def test_a_model_name_that_triton_can_not_have(engine_folder, tmp_path, name, triton_runtime):
    options = ("--free-ports", "--run-dir", str(tmp_path / "r"), f"--name={name}")
    check(CliRunner().invoke(main, ["serve", str(engine_folder), *options]), 2, "model name")
    repo = ["serve", "repo", str(engine_folder), "-o", str(tmp_path / "repo"), f"--name={name}"]
    check(CliRunner().invoke(main, repo), 2, "model name")


def test_the_folder_above_is_no_run_folder(engine_folder, tmp_path, monkeypatch) -> None:
    """`serve ..` must not take the folder of run folders, or the one above it, for its own."""
    (tmp_path / "root").mkdir(mode=0o755)
    monkeypatch.setenv("NEMOTRT_RUN_DIR", str(tmp_path / "root"))
    (engine_folder / "inside").mkdir(exist_ok=True)
    monkeypatch.chdir(engine_folder / "inside")
    mode = tmp_path.stat().st_mode
    result = CliRunner().invoke(main, ["serve", "..", "--free-ports", "--no-triton", "--dry-run"])
    os.rmdir(engine_folder / "inside")
    assert result.exit_code in (0, 1), result.output
    assert tmp_path.stat().st_mode == mode
    assert {path.name for path in (tmp_path / "root").iterdir()} <= {engine_folder.name}
