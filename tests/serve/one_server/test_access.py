"""Who is let in: API keys, TLS, sizes, and what listens where; over the whole stack."""

import base64
import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from nemotrt.errors import ConfigError
from nemotrt.serve.front.http.access import read_api_keys
from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import ServerState

pytestmark = pytest.mark.triton
KEY = {"Authorization": "Bearer first-key"}


@pytest.fixture(scope="module")
def locked(engine_folder, tmp_path_factory) -> Iterator[ServerState]:
    folder = tmp_path_factory.mktemp("keys")
    keys = folder / "keys"
    keys.write_text("# ours\nfirst-key\nsecond-key\n")
    keys.chmod(0o600)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    options = ("--threads", "1", "--api-key-file", keys, "--max-body-bytes", 5000)
    options += ("--tls-certificate", folder / "cert.pem", "--tls-key", folder / "key.pem")
    with serve_engine(engine_folder, *map(str, options), drain_s=2) as state:
        yield state


def state_file(server: ServerState, name: str) -> Any:
    return json.loads((Path(server.run_folder) / name).read_text())


def https(server: ServerState, path: str, **more: Any) -> httpx.Response:
    base = server.openai_url.removesuffix("/v1")
    certificate = state_file(server, "serve.json")["tls_certificate"]
    with httpx.Client(verify=ssl.create_default_context(cafile=certificate)) as client:
        return client.request(more.pop("method", "GET"), base + path, **more)


def test_without_a_key_nothing_but_health_answers(locked) -> None:
    answers = {
        path: https(locked, path).status_code
        for path in ("/", "/metrics", "/openapi.json", "/v1/models", "/nothing")
    }
    assert set(answers.values()) == {401}
    assert https(locked, "/v1/completions", method="POST", json={}).status_code == 401
    for path in ("/health", "/health/live", "/health/ready"):
        assert https(locked, path).status_code == 200


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer first-key", 200),
        ("bearer second-key", 200),
        (f"Basic {base64.b64encode(b'me:first-key').decode()}", 200),
        ("Bearer first-ke", 401),
        ("Bearer # ours", 401),
        ("Bearer", 401),
        ("Basic !!", 401),
        ("first-key", 401),
    ],
)
def test_keys(locked, header, status) -> None:
    answer = https(locked, "/v1/models", headers={"Authorization": header})
    assert answer.status_code == status


def test_keys_are_in_no_log(locked) -> None:
    https(locked, "/v1/models", headers={"Authorization": "Bearer wrong-key"})
    for path in Path(locked.run_folder).iterdir():
        if path.is_file():
            assert b"first-key" not in path.read_bytes() and b"wrong-key" not in path.read_bytes()


def test_a_body_that_is_too_large_is_refused(locked) -> None:
    body = json.dumps({"model": "llm", "prompt": "x" * 6000}).encode()
    headers = {**KEY, "content-type": "application/json"}
    sized = https(locked, "/v1/completions", method="POST", content=body, headers=headers)
    chunks = iter([body[:3000], body[3000:]])
    chunked = https(locked, "/v1/completions", method="POST", content=chunks, headers=headers)
    assert (sized.status_code, chunked.status_code) == (413, 413)


def test_a_key_file_that_others_can_read_is_refused(tmp_path) -> None:
    path = tmp_path / "keys"
    path.write_text("key")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_api_keys(path)


def processes(server: ServerState) -> list[psutil.Process]:
    found = [psutil.Process(server.pid)]
    for pid in server.processes.values():
        found += [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return found


def listening(server: ServerState) -> set[tuple[str, int]]:
    """Return the addresses on which any of the server's processes listens."""
    return {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for process in processes(server)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def test_with_keys_the_front_alone_has_a_port(locked) -> None:
    assert listening(locked) == {("127.0.0.1", httpx.URL(locked.openai_url).port)}
    assert locked.http_url is None and locked.metrics_url is None
    folder = Path(locked.run_folder)
    assert folder.stat().st_mode & 0o077 == 0
    sockets = {path.name for path in folder.iterdir() if path.is_socket()}
    assert sockets == {"engine.sock", "http", "metrics", "grpc:1"}


def test_with_keys_the_whole_stack_answers(locked, solo) -> None:
    body = {"model": "llm", "prompt": "The", "max_tokens": 6, "temperature": 0}
    answer = https(locked, "/v1/completions", method="POST", json=body, headers=KEY)
    assert answer.json()["choices"][0]["text"] == solo("The", max_tokens=6)["text"]
    with grpc.InferenceServerClient(locked.grpc_url) as client:  # by this user's own hand
        assert client.is_model_ready("llm")


def test_without_keys_what_is_open_and_what_answers(server) -> None:
    """Every open port is loopback; Triton's serve the model and close their administration."""
    urls = {
        "front": server.openai_url,
        "http": server.http_url,
        "metrics": server.metrics_url,
        "grpc": f"//{server.grpc_url}",
    }
    ports = {name: httpx.URL(url).port for name, url in urls.items()}
    assert listening(server) == {("127.0.0.1", port) for port in ports.values()}
    paths = ("/", "/v1/models", "/metrics", "/v2/health/live", "/v2/models/llm/config")
    found = {}
    for name in ("front", "http", "metrics"):
        base = f"http://127.0.0.1:{ports[name]}"
        answers = {path: httpx.get(base + path) for path in paths}
        found[name] = {path for path, answer in answers.items() if answer.status_code == 200}
    assert found["front"] == {"/", "/v1/models", "/metrics"}
    assert found["http"] == {"/v2/health/live", "/v2/models/llm/config"}
    texts = {answer.text[:6] for answer in answers.values()}
    assert texts <= {"# HELP", ""}  # figures or nothing, at any path


CLOSED = (
    "repository/index",
    "repository/models/llm/unload",
    "systemsharedmemory/region/x/register",
    "cudasharedmemory/region/x/register",
    "trace/setting",
    "logging",
)


def key_in_process_list(server: ServerState) -> str:
    words = psutil.Process(server.processes["triton"]).cmdline()
    [flag] = [word for word in words if word.startswith("--http-restricted-api=")]
    return flag.partition("closed=")[2]


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("with_key", [False, True])
def test_tritons_administration_is_closed(server, path, with_key) -> None:
    """Even to whoever has read the key in the list of processes."""
    headers = {"closed": key_in_process_list(server).strip()} if with_key else {}
    answer = httpx.post(f"{server.http_url}/v2/{path}", json={}, headers=headers)
    assert answer.status_code == 403, answer.text


@pytest.mark.parametrize("with_key", [False, True])
def test_tritons_administration_is_closed_over_grpc(server, with_key) -> None:
    headers = {"closed": key_in_process_list(server).strip()} if with_key else {}
    with grpc.InferenceServerClient(server.grpc_url) as client:
        for ask in (
            lambda: client.get_model_repository_index(headers=headers),
            lambda: client.get_system_shared_memory_status(headers=headers),
            lambda: client.get_log_settings(headers=headers),
        ):
            with pytest.raises(InferenceServerException, match="restricted"):
                ask()
