"""Log-probabilities over HTTP: prompt and output, against transformers and the tokenizer's text."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import tokenizers
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import ServerState
from support import reference

LIMITS = Limits(max_batch_size=8, max_seq_len=256, chunk_tokens=16)
PROMPTS = ["The Debian package manager", "このコマンドは使えない。", "x", "naïve 😀 text\n\n  end"]
VOCAB = 4096
Json = dict[str, Any]


class Served:
    """A server over a tiny model, and what transformers and tokenizers say of the same folder."""

    def __init__(self, name: str, state: ServerState) -> None:
        folder = TINY_MODELS[name]
        self.state = state
        self.url = state.openai_url
        self.model = reference.from_folder(folder)
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))

    def post(self, path: str, **body: Any) -> Json:
        answer = httpx.post(f"{self.url}/{path}", json={"model": "llm", **body}, timeout=60)
        assert answer.status_code == 200, answer.text
        result: Json = answer.json()
        return result

    def refusal(self, path: str, **body: Any) -> str:
        answer = httpx.post(f"{self.url}/{path}", json={"model": "llm", **body}, timeout=60)
        assert answer.status_code == 400, answer.text
        return str(answer.json()["error"]["message"])

    def stream(self, path: str, **body: Any) -> list[Json]:
        body |= {"model": "llm", "stream": True}
        chunks = []
        with httpx.stream("POST", f"{self.url}/{path}", json=body, timeout=60) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    chunks.append(json.loads(line.removeprefix("data: ")))
        return chunks

    def log_softmax(self, ids: list[int]) -> np.ndarray:
        """Row i is the distribution after ids[i]."""
        rows = torch.tensor(reference.logits(self.model, ids), dtype=torch.float64)
        return torch.log_softmax(rows, -1).numpy()


@pytest.fixture(
    scope="module",
    params=[
        "tiny",
        pytest.param("tiny-dense", marks=[pytest.mark.triton, pytest.mark.slow]),
    ],
)
def served(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Served]:
    """The hybrid without Triton, the dense model behind the real one."""
    folder = tmp_path_factory.mktemp("logprobs") / "engine"
    build_engine(TINY_MODELS[request.param], folder, BuildSpec(limits=LIMITS))
    options = ["--threads", "1"]
    if request.param == "tiny":
        options.append("--no-triton")
    else:
        request.getfixturevalue("triton_runtime")
    with serve_engine(folder, *options, drain_s=5) as state:
        yield Served(request.param, state)


def check_completion(served: Served, ids: list[int], logprobs: Json, num_top: int) -> None:
    """Entry i is of ids[i], given what precedes it; nothing precedes the first one."""
    expected = served.log_softmax(ids)
    count = len(ids)
    assert [len(column) for column in logprobs.values()] == [count] * 4
    assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
    for position in range(1, count):
        row, token = expected[position - 1], ids[position]
        found = logprobs["token_logprobs"][position]
        assert found == pytest.approx(row[token], abs=1e-4)
        top = logprobs["top_logprobs"][position]
        assert num_top <= len(top) <= num_top + 1, "a token's entry is lost"
        assert top[logprobs["tokens"][position]] == found
        best = np.sort(row)[::-1][:num_top]
        assert sorted(top.values(), reverse=True)[:num_top] == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("num_top", [0, 1, 5])
def test_echoed_log_probabilities_are_transformers(served, prompt, num_top) -> None:
    body = {"prompt": prompt, "echo": True, "logprobs": num_top, "temperature": 0}
    [alone] = served.post("completions", max_tokens=0, **body)["choices"]
    ids = served.tokenizer.encode(prompt).ids
    assert (alone["text"], alone["finish_reason"]) == (prompt, "length")
    check_completion(served, ids, alone["logprobs"], num_top)
    [longer] = served.post("completions", max_tokens=6, ignore_eos=True, **body)["choices"]
    output = [
        int(rows.argmax()) for rows in _greedy(served, ids, 6)
    ]  # transformers' own continuation
    check_completion(served, ids + output, longer["logprobs"], num_top)
    assert longer["text"].startswith(prompt)


def _greedy(served: Served, ids: list[int], count: int) -> Iterator[np.ndarray]:
    ids = list(ids)
    for _ in range(count):
        row = served.log_softmax(ids)[-1]
        ids.append(int(row.argmax()))
        yield row


@given(ids=st.lists(st.integers(3, VOCAB - 1), min_size=1, max_size=50))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_ids_as_prompt(served: Served, ids: list[int]) -> None:
    """Parts of characters and special tokens among them; several chunks; the output goes on."""
    body = {"prompt": ids, "echo": True, "logprobs": 3, "max_tokens": 0}
    answer = served.post("completions", **body)
    [choice] = answer["choices"]
    check_completion(served, ids, choice["logprobs"], 3)
    kept = answer["usage"].pop("prompt_tokens_details")["cached_tokens"]
    assert 0 <= kept < len(ids)
    assert answer["usage"] == {
        "prompt_tokens": len(ids),
        "completion_tokens": 0,
        "total_tokens": len(ids),
    }
    text, places = choice["text"], choice["logprobs"]["text_offset"]
    assert text == served.tokenizer.decode(ids)
    check_places(text, choice["logprobs"]["tokens"], places, 0)


def check_places(text: str, tokens: list[str], places: list[int], start: int) -> None:
    """A token that is whole characters stands where it says; the others never go back."""
    assert places == sorted(places) and places[0] == start and places[-1] <= len(text)
    for name, place in zip(tokens, places, strict=True):
        if name.startswith("<SPECIAL_") or name in ("<unk>", "<s>", "</s>"):
            continue
        if not name.startswith("bytes:"):
            assert text[place : place + len(name)] == name


@pytest.mark.parametrize("prompt", PROMPTS)
def test_places_in_the_prompt_are_the_tokenizers(served, prompt) -> None:
    """The library's own offsets; the <s> that it adds has none."""
    body = {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 0}
    [choice] = served.post("completions", **body)["choices"]
    encoding = served.tokenizer.encode(prompt)
    assert choice["logprobs"]["text_offset"] == [start for start, _ in encoding.offsets]
    plain = served.post("completions", **body, add_special_tokens=False)["choices"][0]
    assert len(plain["logprobs"]["tokens"]) == len(encoding.ids) - 1


def test_places_of_the_output_follow_the_echo(served) -> None:
    """Hot sampling brings parts of characters; every token stands where its text does."""
    seen_parts = 0
    for seed in range(6):
        body = {"prompt": PROMPTS[3], "echo": True, "logprobs": 2, "max_tokens": 60}
        body |= {"temperature": 2.0, "seed": seed, "ignore_eos": True}
        [choice] = served.post("completions", **body)["choices"]
        found = choice["logprobs"]
        num_prompt = len(served.tokenizer.encode(PROMPTS[3]).ids)
        places = found["text_offset"]
        check_places(choice["text"], found["tokens"], places, 0)
        assert places[num_prompt] == len(PROMPTS[3])
        assert len(set(map(len, found["top_logprobs"][1:]))) <= 2
        seen_parts += sum(name.startswith("bytes:") for name in found["tokens"][num_prompt:])
    assert seen_parts, "no token was a part of a character: the test shows nothing"


def test_streams_carry_the_echo_first(served) -> None:
    body = {"prompt": PROMPTS[:2], "n": 2, "echo": True, "logprobs": 2, "max_tokens": 5, "seed": 3}
    whole = served.post("completions", **body)["choices"]
    texts = [""] * 4
    parts: list[list[Json]] = [[] for _ in texts]
    for chunk in served.stream("completions", **body):
        for choice in chunk["choices"]:
            if not texts[choice["index"]]:
                assert choice["text"].startswith(PROMPTS[choice["index"] // 2])
            texts[choice["index"]] += choice["text"]
            parts[choice["index"]].append(choice["logprobs"])
    for one, text, own in zip(whole, texts, parts, strict=True):
        assert text == one["text"]
        for column, values in one["logprobs"].items():
            found = [item for part in own for item in part[column]]
            assert len(found) == len(values)
            for item, value in zip(found, values, strict=True):  # batches differ: so do last bits
                expected = value if column == "tokens" else pytest.approx(value, abs=1e-4)
                assert item == (None if value is None else expected), column


def test_tokens_that_a_stop_string_cut_off_keep_their_entries(served) -> None:
    body = {"prompt": PROMPTS[0], "max_tokens": 20, "ignore_eos": True, "logprobs": 1, "seed": 1}
    [whole] = served.post("completions", **body)["choices"]
    stop = whole["text"][7:10]
    answer = served.post("completions", **body, stop=stop)
    [cut] = answer["choices"]
    assert cut["text"] == whole["text"][: whole["text"].index(stop)]
    count = answer["usage"]["completion_tokens"]
    assert 0 < count < 20
    assert cut["logprobs"] == {name: column[:count] for name, column in whole["logprobs"].items()}


def test_echo_alone_brings_no_log_probabilities(served) -> None:
    body = {"prompt": "The", "echo": True, "max_tokens": 0}
    [choice] = served.post("completions", **body)["choices"]
    assert choice == {"index": 0, "text": "The", "logprobs": None, "finish_reason": "length"}


@pytest.mark.parametrize("num_top", [0, 3])
def test_prompt_logprobs_by_id(served, num_top) -> None:
    """As vLLM names them: on each choice of completions, on a chat's answer."""
    prompts = [served.tokenizer.encode(prompt).ids for prompt in PROMPTS]
    body = {"prompt": prompts, "max_tokens": 1, "n": 2, "prompt_logprobs": num_top}
    choices = served.post("completions", **body)["choices"]
    assert len(choices) == 8
    for choice in choices:
        assert choice["logprobs"] is None
        check_by_id(served, prompts[choice["index"] // 2], choice["prompt_logprobs"], num_top)
    both = served.post(
        "completions",
        prompt=prompts[0],
        max_tokens=0,
        echo=True,
        logprobs=1,
        prompt_logprobs=num_top,
    )["choices"][0]
    check_by_id(served, prompts[0], both["prompt_logprobs"], num_top)
    check_completion(served, prompts[0], both["logprobs"], 1)
    messages = [{"role": "user", "content": "hi"}]
    answer = served.post(
        "chat/completions", messages=messages, max_tokens=1, prompt_logprobs=num_top
    )
    ids = [int(token) for entry in answer["prompt_logprobs"][1:] for token in list(entry)[-1:]]
    assert len(answer["prompt_logprobs"]) == answer["usage"]["prompt_tokens"] == len(ids) + 1


def check_by_id(served: Served, ids: list[int], found: list[Json | None], num_top: int) -> None:
    assert found[0] is None and len(found) == len(ids)
    expected = served.log_softmax(ids)
    for token, entry, row in zip(ids[1:], found[1:], expected[:-1], strict=True):
        assert entry is not None and num_top <= len(entry) <= num_top + 1
        assert str(token) in entry
        for name, item in entry.items():
            assert set(item) == {"logprob", "rank", "decoded_token"}
            assert item["logprob"] == pytest.approx(row[int(name)], abs=1e-4)
            assert np.sort(row)[-item["rank"]] == pytest.approx(row[int(name)], abs=1e-4)


def test_a_chats_tokens_are_known_by_their_bytes(served) -> None:
    """`bytes` joined are the answer; a part of a character has its own byte, not U+FFFD's."""
    messages = [{"role": "user", "content": "hi"}]
    num_parts = 0
    for seed in range(6):
        answer = served.post(
            "chat/completions",
            messages=messages,
            separate_reasoning=False,
            logprobs=True,
            top_logprobs=4,
            temperature=2.0,
            max_tokens=60,
            seed=seed,
            ignore_eos=True,
        )["choices"][0]
        entries = answer["logprobs"]["content"]
        shown = [e["bytes"] for e in entries if not e["token"].startswith("<SPECIAL_")]
        text = b"".join(map(bytes, shown)).decode(errors="replace")
        for special in ("<unk>", "<s>", "</s>"):
            text = text.replace(special, "")
        assert text.rstrip("\ufffd") == answer["message"]["content"].rstrip("\ufffd")
        for entry in entries:
            assert 4 <= len(entry["top_logprobs"]) <= 5
            own = [e for e in entry["top_logprobs"] if e["token"] == entry["token"]]
            assert [e["logprob"] for e in own] == [entry["logprob"]]
            names = [e["token"] for e in entry["top_logprobs"]]
            assert len(set(names)) == len(names)
            for one in (entry, *entry["top_logprobs"]):
                if one["token"].startswith("bytes:"):
                    escaped = one["token"].removeprefix("bytes:")
                    assert escaped == "".join(f"\\x{byte:02x}" for byte in one["bytes"])
                else:
                    assert bytes(one["bytes"]).decode() == one["token"]
            num_parts += entry["token"].startswith("bytes:")
    assert num_parts, "no token was a part of a character: the test shows nothing"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("completions", {"max_tokens": 0}, "max_tokens must be at least 1"),
        ("completions", {"max_tokens": 0, "logprobs": 1}, "max_tokens must be at least 1"),
        ("completions", {"prompt_logprobs": 1, "stream": True}, "prompt_logprobs needs stream"),
        ("completions", {"prompt_logprobs": 21}, "prompt_logprobs"),
        ("completions", {"logprobs": 21}, "logprobs"),
        ("chat/completions", {"top_logprobs": 2}, "top_logprobs needs logprobs"),
        ("chat/completions", {"top_logprobs": 2, "logprobs": False}, "top_logprobs needs logp"),
        ("chat/completions", {"prompt_logprobs": 1, "stream": True}, "prompt_logprobs needs"),
        ("chat/completions", {"max_tokens": 0, "prompt_logprobs": 1}, "max_tokens"),
    ],
)
def test_what_has_no_effect_is_refused(served, path, body, message) -> None:
    subject = {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {}
    assert message in served.refusal(path, **(subject or {"prompt": "x"}), **body)


def test_a_prompt_may_fill_the_engine(served) -> None:
    """With max_tokens 0 there need be no room for output."""
    ids = [5] * LIMITS.max_seq_len
    body = {"prompt": ids, "echo": True, "logprobs": 0}
    [choice] = served.post("completions", max_tokens=0, **body)["choices"]
    assert len(choice["logprobs"]["tokens"]) == LIMITS.max_seq_len
    assert "the engine holds 256" in served.refusal("completions", max_tokens=1, **body)


def test_the_openai_package_reads_it(served) -> None:
    with openai.OpenAI(base_url=served.url, api_key="none", max_retries=0) as client:
        found = client.completions.create(
            model="llm", prompt="The Debian", echo=True, logprobs=2, max_tokens=3
        )
        logprobs = found.choices[0].logprobs
        assert logprobs is not None and logprobs.token_logprobs is not None
        assert logprobs.token_logprobs[0] is None and len(logprobs.token_logprobs) > 4


FIELDS = {
    "stream": [False, True],
    "include_usage": [False, True],
    "continuous_usage_stats": [False, True],
    "n": [1, 2],
    "max_tokens": [0, 1, 4],
    "prompt_logprobs": [None, 0, 2],
    "logprobs": [None, 0, 3],
    "echo": [False, True],
}
combined = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in FIELDS.items()})
swept = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def split_stream(asked: Json) -> tuple[Json, Json]:
    """Return the request's fields, and those of stream_options that belong into it."""
    options = {name: asked.pop(name) for name in ("include_usage", "continuous_usage_stats")}
    body = {name: value for name, value in asked.items() if value is not None}
    if body["stream"]:
        body["stream_options"] = options
    return body, options


def check_usage(chunks: list[Json], options: Json, num_prompt: int) -> int:
    """Return the generated tokens; every usage is right where it stands, none stands elsewhere."""
    last = chunks[-1].get("usage")
    if options["include_usage"]:
        assert chunks[-1]["choices"] == []
        chunks = chunks[:-1]
    counts = []
    for chunk in chunks:
        assert chunk["choices"]
        if not options["continuous_usage_stats"]:
            assert chunk.get("usage") is None
            continue
        usage = chunk["usage"]
        assert usage["prompt_tokens"] == num_prompt
        assert usage["total_tokens"] == num_prompt + usage["completion_tokens"]
        counts.append(usage["completion_tokens"])
    assert counts == sorted(counts)
    if options["include_usage"] and counts:
        assert last is not None and last["completion_tokens"] == counts[-1]
    return last["completion_tokens"] if last else -1


@given(asked=combined, prompts=st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=2))
@swept
def test_each_field_of_completions_has_its_effect(
    served: Served, asked: Json, prompts: list[str]
) -> None:
    """Beside every other one: an effect, or a refusal by name."""
    body, options = split_stream(dict(asked))
    body |= {"prompt": prompts, "ignore_eos": True, "temperature": 0}
    is_streamed, count = body["stream"], body["max_tokens"]
    wants_prompt = body.get("prompt_logprobs") is not None
    if count == 0 and not body["echo"] and not wants_prompt:
        assert "max_tokens" in served.refusal("completions", **body)
        return
    if is_streamed and wants_prompt:
        assert "prompt_logprobs needs" in served.refusal("completions", **body)
        return
    encoded = [served.tokenizer.encode(prompt).ids for prompt in prompts]
    num_prompt = sum(map(len, encoded))
    num_choices = len(prompts) * body["n"]
    whole = served.post("completions", **{**body, "stream": False, "stream_options": None})
    assert whole["usage"]["prompt_tokens"] == num_prompt
    assert whole["usage"]["completion_tokens"] == count * num_choices
    choices = whole["choices"]
    assert len(choices) == num_choices
    if is_streamed:
        chunks = served.stream("completions", **body)
        generated = check_usage(chunks, options, num_prompt)
        assert generated in (-1, count * num_choices)
        choices = joined_choices(chunks, num_choices)
        assert [c["text"] for c in choices] == [c["text"] for c in whole["choices"]]
    for index, choice in enumerate(choices):
        prompt, ids = prompts[index // body["n"]], encoded[index // body["n"]]
        assert choice["text"].startswith(prompt) == body["echo"] or not body["echo"]
        assert ("prompt_logprobs" in choice) == wants_prompt
        if wants_prompt:
            check_by_id(served, ids, choice["prompt_logprobs"], body["prompt_logprobs"])
        if body.get("logprobs") is None:
            assert choice["logprobs"] is None
            continue
        own = choice["logprobs"]
        assert len(own["tokens"]) == count + (len(ids) if body["echo"] else 0)
        for top, name in list(zip(own["top_logprobs"], own["tokens"], strict=True))[body["echo"] :]:
            assert name in top
            assert max(1, body["logprobs"]) <= len(top) <= body["logprobs"] + 1


def joined_choices(chunks: list[Json], count: int) -> list[Json]:
    """Return a stream's choices put together."""
    choices: list[Json] = [{"text": "", "logprobs": None} for _ in range(count)]
    for chunk in chunks:
        for part in chunk["choices"]:
            whole = choices[part["index"]]
            whole["text"] += part["text"]
            if part["logprobs"] is not None:
                before = whole["logprobs"] or {name: [] for name in part["logprobs"]}
                whole["logprobs"] = {k: before[k] + v for k, v in part["logprobs"].items()}
    return choices


chat_fields = st.fixed_dictionaries(
    {
        **{
            name: st.sampled_from(FIELDS[name])
            for name in FIELDS
            if name not in ("echo", "logprobs")
        },
        "max_tokens": st.sampled_from([1, 4]),
        "logprobs": st.sampled_from([None, False, True]),
        "top_logprobs": st.sampled_from([None, 0, 2]),
    }
)


@given(asked=chat_fields)
@swept
def test_each_field_of_a_chat_has_its_effect(served: Served, asked: Json) -> None:
    body, options = split_stream(dict(asked))
    body |= {"messages": [{"role": "user", "content": "hi"}], "ignore_eos": True, "temperature": 0}
    wants_prompt = body.get("prompt_logprobs") is not None
    if body.get("top_logprobs") and not body.get("logprobs"):
        assert "top_logprobs needs" in served.refusal("chat/completions", **body)
        return
    if body["stream"] and wants_prompt:
        assert "prompt_logprobs needs" in served.refusal("chat/completions", **body)
        return
    whole = served.post("chat/completions", **{**body, "stream": False, "stream_options": None})
    num_prompt = whole["usage"]["prompt_tokens"]
    assert whole["usage"]["completion_tokens"] == body["max_tokens"] * body["n"]
    assert ("prompt_logprobs" in whole) == wants_prompt
    if wants_prompt:
        assert len(whole["prompt_logprobs"]) == num_prompt > 0
    contents = [choice["logprobs"] and choice["logprobs"]["content"] for choice in whole["choices"]]
    if body["stream"]:
        chunks = served.stream("chat/completions", **body)
        generated = check_usage(chunks, options, num_prompt)
        assert generated in (-1, whole["usage"]["completion_tokens"])
        contents = [None] * body["n"]
        for chunk in chunks:
            for part in chunk["choices"]:
                if part["logprobs"] is not None:
                    own = contents[part["index"]] or []
                    contents[part["index"]] = own + part["logprobs"]["content"]
    for content in contents:
        if not body.get("logprobs"):
            assert content is None
            continue
        assert len(content) == body["max_tokens"]
        for entry in content:
            wanted = body.get("top_logprobs") or 0
            assert wanted <= len(entry["top_logprobs"]) <= wanted + bool(wanted)
