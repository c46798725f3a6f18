"""Log-probabilities of chats, what of them is refused, and the openai package."""

import openai
import pytest

from support.served_logprobs import LIMITS


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
