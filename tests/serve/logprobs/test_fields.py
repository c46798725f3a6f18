"""Each field beside log-probabilities has its effect, in any mix."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.served_logprobs import PROMPTS, Json, Served, check_by_id

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
