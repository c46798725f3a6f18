"""Log-probabilities of prompts over a real server, held against transformers; their places."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.served_logprobs import PROMPTS, Json, Served, check_by_id

VOCAB = 4096


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
