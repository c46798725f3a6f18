"""A model's name chooses an adapter: at each door, at Triton's input, in a real server."""

import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.request import Request, Token, Update
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.llm import LLM
from nemotrt.serve.engine.submission import make_submission
from nemotrt.serve.engine.telemetry import Telemetry
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


@pytest.fixture(scope="module")
def native_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hybrid as it is, for adapters: 8 slots, 512 tokens."""
    folder = tmp_path_factory.mktemp("native") / "engine"
    spec = BuildSpec("native", precision=Precision.FP32, limits=Limits(8, 512, 32))
    build_engine(TINY_MODELS["tiny"], folder, spec)
    return folder


LINES = "The engine reads a file and writes another one. " * 6  # kept, and full of what returns
PROMPTS = ("The", LINES, LINES + "In the")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("through", ["front", pytest.param("triton", marks=pytest.mark.triton)])
def test_a_server_answers_with_each_adapter(
    through: str, native_engine: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Many at once, of each adapter and none, some of them left: each answer is its adapter's."""
    from nemotrt.serve.processes.launcher import serve_engine
    from support import lora

    config = {"target_modules": lora.HYBRID, "size": 0.1}
    folders = {
        name: lora.write_adapter(TINY_MODELS["tiny"], tmp_path / name, seed=seed, **config)
        for seed, name in enumerate(("pirate", "brief"))
    }
    with LLM(native_engine, lora=folders, quiet=True) as llm:
        params = SamplingParams(max_tokens=12)
        want = {
            (name, prompt): llm.generate(prompt, params, adapter=name).text
            for name in ("", *folders)
            for prompt in PROMPTS
        }
    assert len({want[name, "The"] for name in ("", *folders)}) == 3
    options = [word for name, path in folders.items() for word in ("--lora", f"{name}={path}")]
    if through == "triton":
        request.getfixturevalue("triton_runtime")
    else:
        options.append("--no-triton")
    with (
        serve_engine(native_engine, *options, drain_s=5) as server,
        httpx.Client(base_url=server.openai_url.removesuffix("/v1"), timeout=120) as client,
    ):
        cached = 0

        def ask(model: str, prompt: str, leaves: bool) -> dict[str, Any]:
            body = {"model": model, "prompt": prompt, "max_tokens": 12, "temperature": 0}
            if leaves:
                more = {"stream": True, "max_tokens": 400, "ignore_eos": True}
                with client.stream("POST", "/v1/completions", json=body | more) as stream:
                    next(stream.iter_lines())
            answer = client.post("/v1/completions", json=body)
            assert answer.status_code == 200, answer.text
            return dict(answer.json())

        models = {"llm": "", "pirate": "pirate", "llm:brief": "brief", "brief": "brief"}
        asked = [(model, prompt) for prompt in PROMPTS for model in models] * 2
        with ThreadPoolExecutor(len(asked)) as pool:
            told = pool.map(lambda item: ask(*item[1], item[0] % 5 == 0), enumerate(asked))
            for (model, prompt), answer in zip(asked, told, strict=True):
                assert answer["choices"][0]["text"] == want[models[model], prompt], (model, prompt)
                assert answer["model"] == model
                cached += (answer["usage"].get("prompt_tokens_details") or {})["cached_tokens"]
        assert cached > 0
        for name in ("none", "llm:none", "pirate:brief"):
            answer = client.post("/v1/completions", json={"model": name, "prompt": "The"})
            assert answer.status_code == 404 and "brief" in answer.text
        listed = client.get("/v1/models").json()["data"]
        assert [(m["id"], m.get("parent")) for m in listed][-2:] == [
            ("pirate", "llm"),
            ("brief", "llm"),
        ]
        if server.http_url is not None:
            check_triton(server.http_url, want)


def check_triton(url: str, want: dict[tuple[str, str], str]) -> None:
    """Ask Triton itself."""
    body = {"text_input": "The", "max_tokens": 12, "temperature": 0.0}
    for name in ("", "pirate", "brief"):
        more = {"lora_name": name} if name else {}
        answer = httpx.post(f"{url}/v2/models/llm/generate", json=body | more, timeout=60)
        assert answer.json()["text_output"] == want[name, "The"], answer.text
    for name, why in {"none": "unknown adapter", "": "lora_name must have"}.items():
        answer = httpx.post(f"{url}/v2/models/llm/generate", json=body | {"lora_name": name})
        assert answer.status_code >= 400 and why in answer.text


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_commands_choose_an_adapter(native_engine: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from support import lora

    config = {"target_modules": ["in_proj"], "size": 0.1}
    one = lora.write_adapter(TINY_MODELS["tiny"], tmp_path / "one", **config)

    def run(*words: str) -> Any:
        line = ["generate", str(native_engine), "The", "--max-tokens", "8", *words]
        return CliRunner().invoke(main, line)

    def chat(*words: str) -> Any:
        line = ["chat", str(native_engine), "--no-think", "--max-tokens", "8", *words]
        return CliRunner().invoke(main, [*line, "--temperature", "0"], input="Hi\n")

    with LLM(native_engine, lora={"one": one}, quiet=True) as llm:
        params = SamplingParams(max_tokens=8)
        want, said = (
            llm.generate("The", params, adapter="one"),
            llm.chat("Hi", params, thinking=False, adapter="one"),
        )
    plain, told = run(), run("--lora", f"one={one}", "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["text"] == want.text != plain.stdout.rstrip("\n")
    answered = chat("--lora", f"one={one}", "--lora", f"two={one}", "--adapter", "one")
    assert answered.exit_code == 0, answered.output
    assert said.text.strip() in answered.output
    assert said.text.strip() not in chat().output
    several = ("--lora", f"one={one}", "--lora", f"two={one}")
    assert "choose by --adapter one or two" in run(*several).output
    assert run(*several, "--adapter", "two").stdout.rstrip() != plain.stdout.rstrip()
    assert "unknown adapter 'three'" in run(*several, "--adapter", "three").output
    assert "unknown adapter" in run("--adapter", "one").output
    assert "NAME=DIR" in run("--lora", str(one)).output


def test_metrics_are_by_adapter_and_of_admitted_requests_alone() -> None:
    """A name that no engine has makes no label: it is refused before it has a slot."""
    telemetry = Telemetry()
    for name, adapter, is_admitted in (("1", "pirate", True), ("2", "", True), ("3", "x", False)):
        request = Request(name, (1, 2, 3), adapter=adapter)
        submission: Any = SimpleNamespace(
            request=request, submitted_s=0.0, trail=SimpleNamespace(request_id=name)
        )
        telemetry.submitted(submission)
        if is_admitted:
            telemetry.admitted(submission)
            telemetry.updated(Update(name, (Token(5, "a"), Token(6, "b"))), 1.0)
        telemetry.ended(name, "stop")
    lines = [line for line in telemetry.text({}).splitlines() if line.startswith("nemotrt_adapter")]
    assert {line for line in lines if "_created" not in line} == {
        'nemotrt_adapter_requests_total{adapter="pirate"} 1.0',
        'nemotrt_adapter_prompt_tokens_total{adapter="pirate"} 3.0',
        'nemotrt_adapter_output_tokens_total{adapter="pirate"} 2.0',
    }
    assert "nemotrt_prompt_tokens_total 6.0" in telemetry.text({})
