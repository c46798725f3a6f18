"""A model's name chooses an adapter: at each door, at Triton's input, in a real server."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from nemotrt.cli import main
from nemotrt.errors import ConfigError
from nemotrt.serve.engine.submission import make_submission
from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.upstream.upstream import Fields
from nemotrt.serve.processes.options import check_adapter_names
from support.saying_upstream import FILES


class Noting:
    """An upstream that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Fields] = []

    async def generate(self, inputs: Fields, *_: Any, **__: Any) -> AsyncIterator[Fields]:
        self.asked.append(inputs)
        counts: Fields = {"num_input_tokens": 3, "num_output_tokens": 1}
        yield {"text_output": "Ok", "finish_reason": "stop", "final": True, **counts}

    async def is_ready(self) -> bool:
        return True

    async def close(self) -> None:
        pass


DOORS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4},
}
NAMES = {"llm": None, "nano": None, "pirate": "pirate", "llm:pirate": "pirate", "nano:b": "b"}


@pytest.fixture
def asked() -> Noting:
    return Noting()


@pytest.fixture
def client(asked: Noting) -> TestClient:
    spec = FrontSpec("llm", FILES, asked, aliases=("nano",), adapters=("pirate", "b"))
    return TestClient(create_app(spec))


@pytest.mark.parametrize("door", DOORS)
def test_each_door_takes_an_adapters_name(door: str, client: TestClient, asked: Noting) -> None:
    for name, adapter in NAMES.items():
        answer = client.post(door, json={"model": name, **DOORS[door]})
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == name
        assert asked.asked[-1].get("lora_name") == adapter
    assert client.post(door, json=DOORS[door]).status_code == 200
    assert "lora_name" not in asked.asked[-1]
    for name in ("other", "llm:other", "other:pirate", "pirate:b", "llm:", ":pirate"):
        answer = client.post(door, json={"model": name, **DOORS[door]})
        assert answer.status_code == 404, name
        assert "pirate" in answer.text


def test_the_list_has_each_adapter_with_its_parent(client: TestClient) -> None:
    models = client.get("/v1/models").json()["data"]
    assert [model["id"] for model in models] == ["llm", "nano", "pirate", "b"]
    assert [model.get("parent") for model in models] == [None, None, "llm", "llm"]
    assert {model["root"] for model in models} == {"llm"}
    assert client.get("/v1/models/llm:pirate").json()["parent"] == "llm"
    assert client.get("/v1/models/none").status_code == 404


def test_a_body_has_no_such_field(client: TestClient) -> None:
    body = {"lora_name": "pirate", **DOORS["/v1/chat/completions"]}
    assert client.post("/v1/chat/completions", json=body).status_code == 400


def test_tritons_input_is_the_adapters_name(opened: Any) -> None:
    def request(**inputs: Any) -> Any:
        values = {"text_input": "The", "max_tokens": 1, **inputs}
        return make_submission("r", values, opened, None, lambda fields: None).request

    assert request().adapter == ""
    assert request(lora_name="pirate").adapter == "pirate"


def test_an_adapter_is_not_called_like_the_model() -> None:
    check_adapter_names(("a",), ("llm",))
    with pytest.raises(ConfigError, match="called like the model"):
        check_adapter_names(("a", "llm"), ("llm", "nano"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_server_answers_with_each_adapter(tiny_engine: Path, tmp_path: Path) -> None:
    from nemotrt.engines.runtime.sampling.params import SamplingParams
    from nemotrt.engines.tiny.models import TINY_MODELS
    from nemotrt.llm import LLM
    from nemotrt.serve.processes.launcher import serve_engine
    from support import lora

    config = {"target_modules": lora.HYBRID, "size": 0.1}
    folders = {
        name: lora.write_adapter(TINY_MODELS["tiny"], tmp_path / name, seed=seed, **config)
        for seed, name in enumerate(("pirate", "brief"))
    }
    with LLM(tiny_engine, lora=folders, quiet=True) as llm:
        params = SamplingParams(max_tokens=12)
        want = {name: llm.generate("The", params, adapter=name).text for name in ("", *folders)}
    assert len(set(want.values())) == 3
    words = [word for name, path in folders.items() for word in ("--lora", f"{name}={path}")]
    with serve_engine(tiny_engine, "--no-triton", *words, drain_s=5) as server:
        url = f"{server.openai_url}/v1"
        for model, name in {"llm": "", "pirate": "pirate", "llm:brief": "brief"}.items():
            body = {"model": model, "prompt": "The", "max_tokens": 12, "temperature": 0}
            answer = httpx.post(f"{url}/completions", json=body, timeout=60).json()
            assert answer["choices"][0]["text"] == want[name]
        body = {"model": "none", "prompt": "The"}
        assert httpx.post(f"{url}/completions", json=body, timeout=60).status_code == 404
        listed = httpx.get(f"{url}/models", timeout=60).json()["data"]
        assert [model["id"] for model in listed][-2:] == ["pirate", "brief"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_commands_choose_an_adapter(tiny_engine: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from nemotrt.engines.tiny.models import TINY_MODELS
    from support import lora

    config = {"target_modules": ["in_proj"], "size": 0.3}
    one = lora.write_adapter(TINY_MODELS["tiny"], tmp_path / "one", **config)

    def run(*words: str) -> Any:
        line = ["generate", str(tiny_engine), "The", "--max-tokens", "8", *words]
        return CliRunner().invoke(main, line)

    plain, told = run(), run("--lora", f"one={one}", "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["text"] != plain.stdout.rstrip("\n")
    several = ("--lora", f"one={one}", "--lora", f"two={one}")
    assert "choose by --adapter one or two" in run(*several).output
    assert run(*several, "--adapter", "two").stdout.rstrip() != plain.stdout.rstrip()
    assert "unknown adapter 'three'" in run(*several, "--adapter", "three").output
    assert "unknown adapter" in run("--adapter", "one").output
    assert "NAME=DIR" in run("--lora", str(one)).output
