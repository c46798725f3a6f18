"""Outside clients against the real tritonserver: tritonclient over gRPC and HTTP, and curl."""

import asyncio
import json
import queue
import re
import subprocess
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from nemotrt.serve.processes.run_folder import ServerState
from nemotrt.wire.tensors import INPUT_BY_NAME

pytestmark = pytest.mark.triton
PROMPTS = [
    "The engine",
    "What is",
    "def main",
    "In the",
    "A server",
    "こんにちは",
    "One two three",
    "X",
]


def tensors(inputs: dict[str, Any]) -> list[Any]:
    """Return tritonclient's inputs."""
    numpy_types = {"STRING": np.object_, "UINT64": np.uint64, "INT32": np.int32}
    numpy_types |= {"FP32": np.float32, "BOOL": np.bool_}
    made = []
    for name, value in inputs.items():
        values = value if isinstance(value, list) else [value]
        values = [v.encode() if isinstance(v, str) else v for v in values]
        array = np.array(values, numpy_types[INPUT_BY_NAME[name].type])
        tensor = grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def stream(server: ServerState, requests: list[dict[str, Any]]) -> list[list[Any]]:
    """Run requests over one gRPC stream; return each one's responses."""
    done: queue.Queue[tuple[Any, Any]] = queue.Queue()
    answers: dict[str, list[Any]] = {str(i): [] for i in range(len(requests))}
    with grpc.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(lambda result, error: done.put((result, error)))
        for number, inputs in enumerate(requests):
            client.async_stream_infer(
                "llm", tensors(inputs), request_id=str(number), enable_empty_final_response=True
            )
        waiting = set(answers)
        while waiting:
            result, error = done.get(timeout=30)
            if error is not None:
                raise error
            response = result.get_response()
            answers[response.id].append(result)
            if response.parameters["triton_final_response"].bool_param:
                waiting.remove(response.id)
        client.stop_stream()
    return [answers[str(i)] for i in range(len(requests))]


def text(results: list[Any]) -> str:
    return b"".join(r.as_numpy("text_output")[0] for r in results).decode()


def test_grpc_streams_equal_their_solo_runs(server, solo) -> None:
    requests = [{"text_input": p, "max_tokens": 24, "stream": True} for p in PROMPTS]
    for prompt, results in zip(PROMPTS, stream(server, requests), strict=True):
        expected = solo(prompt, max_tokens=24)
        assert text(results) == expected["text"]
        assert results[-1].as_numpy("finish_reason")[0].decode() == expected["finish_reason"]


def test_every_output_tensor(server, solo, opened) -> None:
    ids = opened.tokenizer.encode(PROMPTS[0])
    asked = {"return_log_probs": True, "num_top_log_probs": 3, "return_output_ids": True}
    asked |= {"return_num_input_tokens": True, "return_num_output_tokens": True}
    [[result]] = stream(server, [{"input_ids": ids, "max_tokens": 6, **asked}])
    expected = solo(PROMPTS[0], max_tokens=6, logprobs=3)
    tokens = expected["tokens"]
    assert text([result]) == expected["text"]
    assert result.as_numpy("output_ids").tolist() == [t["id"] for t in tokens]
    assert result.as_numpy("num_input_tokens").tolist() == [len(ids)]
    assert result.as_numpy("num_output_tokens").tolist() == [6]
    log_probs = [t["logprob"] for t in tokens]
    np.testing.assert_allclose(result.as_numpy("output_log_probs"), log_probs, rtol=1e-4)
    np.testing.assert_allclose(result.as_numpy("cum_log_probs"), [sum(log_probs)], rtol=1e-4)
    top = [[item["id"] for item in t["top_logprobs"]] for t in tokens]
    assert result.as_numpy("top_log_prob_ids").tolist() == top
    assert result.as_numpy("top_log_probs").shape == (6, 3)


def test_prompt_log_probs_come_with_the_first_response(server, solo, opened) -> None:
    """Tensors over gRPC: the prompt once, its scores from the second token on."""
    ids = opened.tokenizer.encode(PROMPTS[0])
    scored = solo(PROMPTS[0], max_tokens=3, prompt_logprobs=2)["prompt"]
    asked = {"return_prompt_log_probs": True, "num_top_prompt_log_probs": 2}
    for extra in ({"max_tokens": 0}, {"max_tokens": 3, "stream": True}):
        [results] = stream(server, [{"input_ids": ids, **asked, **extra}])
        first, *others = results
        assert first.as_numpy("prompt_ids").tolist() == ids
        log_probs = [token["logprob"] for token in scored[1:]]
        np.testing.assert_allclose(first.as_numpy("prompt_log_probs"), log_probs, rtol=1e-4)
        ranks = [token["rank"] for token in scored[1:]]
        assert first.as_numpy("prompt_log_prob_ranks").tolist() == ranks
        tops = [[item["id"] for item in token["top_logprobs"]] for token in scored[1:]]
        assert first.as_numpy("top_prompt_log_prob_ids").tolist() == tops
        assert first.as_numpy("top_prompt_log_probs").shape == (len(ids) - 1, 2)
        assert all(other.as_numpy("prompt_ids") is None for other in others)
        assert results[-1].as_numpy("finish_reason")[0].decode() == "length"


@pytest.mark.parametrize("num_top", [0, 2])
def test_a_prompt_of_one_token_has_no_scores(server, num_top) -> None:
    asked = {"return_prompt_log_probs": True, "num_top_prompt_log_probs": num_top}
    [[result]] = stream(server, [{"input_ids": [7], "max_tokens": 0, **asked}])
    assert result.as_numpy("prompt_ids").tolist() == [7]
    assert result.as_numpy("prompt_log_probs").tolist() == []


def test_the_prompts_length_comes_first_and_last(server, opened) -> None:
    ids = opened.tokenizer.encode(PROMPTS[0])
    asked = {"return_num_input_tokens": True, "max_tokens": 5, "stream": True}
    [results] = stream(server, [{"input_ids": ids, **asked}])
    for result in (results[0], results[-1]):
        assert result.as_numpy("num_input_tokens").tolist() == [len(ids)]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"num_top_log_probs": 2}, "num_top_log_probs needs return_log_probs"),
        ({"num_top_prompt_log_probs": 2}, "num_top_prompt_log_probs needs return_prompt"),
        ({"return_prompt_log_probs": True, "num_top_prompt_log_probs": 101}, "prompt_logprobs"),
    ],
)
def test_log_probabilities_without_effect_are_refused(server, inputs, message) -> None:
    with pytest.raises(InferenceServerException, match=message):
        stream(server, [{"text_input": "x", **inputs}])


def test_sampling_is_reproducible_with_a_seed(server, solo) -> None:
    params = {"temperature": 0.9, "top_p": 0.9, "top_k": 40, "seed": 2**63 + 5}
    inputs = {"text_input": "The", "max_tokens": 16, **params}
    results = stream(server, [inputs, inputs])
    expected = solo("The", max_tokens=16, **params | {"top_p": float(np.float32(0.9))})
    assert [text(result) for result in results] == [expected["text"]] * 2


def test_stop_words_cut_the_text(server, solo) -> None:
    whole = solo("The", max_tokens=24)["text"]
    word = whole[len(whole) // 2 :][:3]
    [results] = stream(
        server, [{"text_input": "The", "max_tokens": 24, "stop_words": [word], "stream": True}]
    )
    assert text(results) == whole[: whole.index(word)]
    assert results[-1].as_numpy("finish_reason")[0] == b"stop"


def test_prompt_comes_first_when_asked(server, solo) -> None:
    inputs = {"text_input": "The", "max_tokens": 4, "exclude_input_in_output": False}
    [results] = stream(server, [inputs])
    assert text(results) == "The" + solo("The", max_tokens=4)["text"]


def test_grpc_asyncio(server, solo) -> None:
    async def run() -> str:
        async def requests() -> Any:
            inputs = {"text_input": "In the", "max_tokens": 12, "stream": True}
            yield {"model_name": "llm", "inputs": tensors(inputs)}

        async with grpc_aio.InferenceServerClient(server.grpc_url) as client:
            answers = [answer async for answer in client.stream_infer(requests())]
        assert all(error is None for _, error in answers)
        return text([result for result, _ in answers])

    assert asyncio.run(run()) == solo("In the", max_tokens=12)["text"]


def test_http_client_sees_the_model(server) -> None:
    with http.InferenceServerClient(server.http_url.removeprefix("http://")) as client:
        assert client.is_server_ready() and client.is_model_ready("llm")
        config = client.get_model_config("llm")
        assert config["model_transaction_policy"]["decoupled"] is True
        with pytest.raises(InferenceServerException, match="restricted"):
            client.load_model("llm")
        with pytest.raises(InferenceServerException, match="restricted"):
            client.get_system_shared_memory_status()


def test_http_asyncio(server) -> None:
    """Everything that Triton's HTTP has for a decoupled model; what it makes is in curl's tests."""
    tensor = http.InferInput("max_tokens", [1], "INT32")
    tensor.set_data_from_numpy(np.array([4], np.int32))

    async def run() -> None:
        async with http_aio.InferenceServerClient(
            server.http_url.removeprefix("http://")
        ) as client:
            checks = (client.is_server_live(), client.is_server_ready())
            assert all(await asyncio.gather(*checks, client.is_model_ready("llm")))
            assert not await client.is_model_ready("no-such-model")
            metadata = await client.get_model_metadata("llm")
            assert {item["name"] for item in metadata["inputs"]} == set(INPUT_BY_NAME)
            config = await client.get_model_config("llm")
            assert config["model_transaction_policy"]["decoupled"] is True
            statistics = await client.get_inference_statistics("llm")
            assert [found["name"] for found in statistics["model_stats"]] == ["llm"]
            with pytest.raises(InferenceServerException, match="decoupled"):
                await client.infer("llm", [tensor])
            with pytest.raises(InferenceServerException, match="restricted"):
                await client.unload_model("llm")
            assert await client.is_model_ready("llm")

    asyncio.run(run())


def curl(url: str, body: object) -> str:
    command = ["curl", "--silent", "--no-buffer", "--max-time", "30", url, "--data"]
    return subprocess.run([*command, json.dumps(body)], capture_output=True, text=True).stdout


def test_curl_on_generate_stream(server, solo) -> None:
    body = {"text_input": "A server", "max_tokens": 10, "stream": True}
    lines = curl(f"{server.http_url}/v2/models/llm/generate_stream", body).splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    expected = solo("A server", max_tokens=10)
    assert "".join(event["text_output"] for event in events) == expected["text"]
    assert events[-1]["finish_reason"] == expected["finish_reason"]


def test_curl_on_generate(server, solo) -> None:
    body = {"text_input": "A server", "max_tokens": 10}
    answer = json.loads(curl(f"{server.http_url}/v2/models/llm/generate", body))
    assert answer["text_output"] == solo("A server", max_tokens=10)["text"]


def test_the_curl_of_nvidias_readme(server, solo) -> None:
    """Its empty words ask for nothing. Source: README of tensorrtllm_backend."""
    body = {"text_input": "What is machine learning?", "max_tokens": 20}
    body |= {"bad_words": "", "stop_words": ""}
    answer = json.loads(curl(f"{server.http_url}/v2/models/llm/generate", body))
    assert answer["text_output"] == solo("What is machine learning?", max_tokens=20)["text"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"max_tokens": 3}, "give text_input or input_ids"),
        ({"text_input": "x", "input_ids": [5]}, "one of them"),
        ({"text_input": "x", "temperature": -1.0}, "temperature must be 0 or more"),
        ({"text_input": "x", "top_p": 0.0}, "top_p must be above 0"),
        ({"text_input": "x", "beam_width": 4}, "beam_width above 1 is not supported"),
        ({"text_input": "x", "bad_words": ["y"] * 65}, "bad_words has 65 entries"),
        ({"text_input": "x " * 3000}, "the engine holds 1024"),
        ({"text_input": "x" * 3_000_000}, "the engine holds 1024"),
        ({"input_ids": [5] * 3_000_000}, "input_ids has 3000000 elements; the engine holds 1024"),
        ({"text_input": "x", "stop_words": ["ab"] * 65}, "stop_words has 65 entries"),
        ({"text_input": "x", "stop_words": ["a" * 9000]}, "stop_words has 9000 characters in all"),
        ({"input_ids": [10**8]}, "prompt ids must be 0 to"),
        ({"input_ids": [-1]}, "prompt ids must be 0 to"),
        ({"text_input": "x", "max_tokens": 0}, "max_tokens must be at least 1"),
        ({"text_input": "x", "timeout_ms": 0}, "timeout_ms must be at least 1"),
    ],
)
def test_a_bad_request_is_refused_with_its_reason(server, inputs, message) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        stream(server, [inputs])
    assert re.search("(invalid_request|context_length_exceeded): ", str(caught.value))


def test_fuzzed_tensors_get_errors_and_the_server_lives(server, solo) -> None:
    two = np.array([b"a", b"b"], np.object_)
    wrong: list[tuple[str, np.ndarray]] = [
        ("text_input", two),
        ("text_input", np.array([b"\xff\xfe"], np.object_)),
        ("text_input", np.array([1], np.int32)),
        ("text_input", np.array([[b"a"]], np.object_)),
        ("text_input", np.array([], np.object_)),
        ("input_ids", np.array([1.5], np.float32)),
        ("input_ids", np.array([], np.int32)),
        ("no_such_input", np.array([1], np.int32)),
    ]
    with grpc.InferenceServerClient(server.grpc_url) as client:
        for name, array in wrong:
            tensor = grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype) or "BYTES")
            tensor.set_data_from_numpy(array)
            done: queue.Queue[tuple[Any, Any]] = queue.Queue()
            client.start_stream(lambda result, error, done=done: done.put((result, error)))
            client.async_stream_infer("llm", [tensor])
            _, error = done.get(timeout=20)
            assert error is not None, (name, array)
            client.stop_stream()
    [results] = stream(server, [{"text_input": "The", "max_tokens": 4}])
    assert text(results) == solo("The", max_tokens=4)["text"]


PARAMETERS: list[tuple[dict[str, Any], str | None]] = [
    ({"parameters": {"max_tokens": 3}}, None),
    ({"max_tokens": 3, "id": "mine"}, None),
    ({"max_tokens": 3, "traceparent": "none"}, None),
    ({"max_tokens": 3, "json_schema": "{}"}, "json_schema is not supported"),
    ({"max_token": 3}, "max_token is not supported; the nearest tensor is max_tokens"),
    ({"parameters": {"max_token": 3}}, "max_token is not supported"),
]


@pytest.mark.parametrize(("more", "refusal"), PARAMETERS)
def test_a_member_without_effect_is_refused(server, solo, more, refusal) -> None:
    """Triton makes parameters of what is no tensor."""
    url = f"{server.http_url}/v2/models/llm/generate"
    answer = json.loads(curl(url, {"text_input": "A server", **more}))
    if refusal is not None:
        assert refusal in answer["error"]
    else:
        assert answer["text_output"] == solo("A server", max_tokens=3)["text"]
