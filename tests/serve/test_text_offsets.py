"""Places of tokens in texts, and what stands for a log-probability that the engine has not."""

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers

from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.request import FinishReason, Request, Token, Update
from nemotrt.engines.text.tokenizer import Tokenizer, load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.engine.delivery import Delivery
from nemotrt.serve.engine.submission import Submission
from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.openai.logprobs import CompletionLogprobs, chat_logprobs
from nemotrt.serve.front.openai.text_offsets import TextOffsets, prompt_offsets
from nemotrt.serve.front.upstream.triton_upstream import output_fields
from nemotrt.serve.requests.inputs import read_inputs
from support.examples import up_to

TINY = load_tokenizer(TINY_MODELS["tiny"])
assert TINY is not None
FILES = EngineFiles(TINY, None, Limits(1, 64, 8))


@given(
    ids=st.lists(st.integers(0, 4095) | st.integers(32, 287), max_size=40), start=st.integers(0, 9)
)
@settings(max_examples=up_to(500), deadline=None)
def test_every_token_stands_where_the_decoded_text_has_it(ids: list[int], start: int) -> None:
    """Whole characters stand there; of a part, the character that it is in, or what replaced it."""
    assert TINY is not None
    text, offsets = TINY.decode(ids), TextOffsets(TINY, start)
    places = [offsets.add(token) - start for token in ids]
    assert places == sorted(places)
    for token, place in zip(ids, places, strict=True):
        own = TINY.token_bytes(token)
        assert own is not None and 0 <= place <= len(text)
        if TINY.is_special(token):
            continue
        try:
            assert text.startswith(own.decode(), place)
        except UnicodeDecodeError:
            assert text[place] == "\ufffd" or own[0] in text[place].encode()


@given(text=st.text(max_size=40))
@settings(max_examples=up_to(300), deadline=None)
def test_a_prompts_places_are_the_librarys(text: str) -> None:
    assert TINY is not None
    encoding = TINY._backend.encode(text)
    assert prompt_offsets(text, encoding.ids, TINY) == [start for start, _ in encoding.offsets]


def llama() -> Tokenizer:
    pieces = ["<unk>", "▁", "a", "b", "▁a", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    backend = Backend(models.BPE(vocab, [("▁", "a")], byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return Tokenizer(backend)


@given(text=st.text("ab é😀", min_size=1, max_size=20))
@settings(max_examples=up_to(200), deadline=None)
def test_places_where_a_space_is_put_before_the_text(text: str) -> None:
    """Each token's place in the prompt is where its bytes are; the added space is nowhere."""
    tokenizer = llama()
    ids, data = tokenizer.encode(text), text.encode()
    places, done = prompt_offsets(text, ids, tokenizer), -1  # the space before the text
    for token, place in zip(ids, places, strict=True):
        assert place == len(data[: max(done, 0)].decode(errors="ignore"))
        done += len(tokenizer.token_bytes(token) or b"")
    assert done == len(data)


def test_a_text_that_the_tokenizer_changes_is_never_left() -> None:
    backend = Backend(models.WordLevel({"straße": 0, "[UNK]": 1, "x": 2}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = Tokenizer(backend)
    text = "STRASSE x unheard"
    places = prompt_offsets(text, tokenizer.encode(text), tokenizer)
    assert places == sorted(places) and all(0 <= place <= len(text) for place in places)


def test_tokens_of_one_name_keep_their_entries() -> None:
    """In sentencepiece's way a letter and its byte are two tokens."""
    tokenizer = llama()
    letter, byte = (tokenizer._backend.token_to_id(piece) for piece in ("a", "<0x61>"))
    files = EngineFiles(tokenizer, None, Limits(1, 64, 8))
    fields: dict[str, Any] = {"output_ids": [letter], "output_log_probs": [-0.5]}
    fields |= {"top_log_prob_ids": [[letter, byte, 9999]], "top_log_probs": [[-0.5, -2.0, -3.0]]}
    part = CompletionLogprobs(3, "", None).part(fields, files)
    assert part is not None and part["tokens"] == ["a"]
    expected = {"a": -0.5, f"token_id:{byte}": -2.0, "token_id:9999": -3.0}
    assert part["top_logprobs"] == [expected]
    [entry] = chat_logprobs(fields, files)["content"]  # type: ignore[index]
    assert [one["bytes"] for one in entry["top_logprobs"]] == [[97], [97], None]


@pytest.mark.parametrize("files", [FILES, EngineFiles(None, None, Limits(1, 64, 8))])
def test_the_token_itself_is_among_the_likeliest(files: EngineFiles) -> None:
    fields = {"output_ids": [300], "output_log_probs": [-7.0]}
    fields |= {"top_log_prob_ids": [[40, 41]], "top_log_probs": [[-1.0, -2.0]]}
    part = CompletionLogprobs(2, "", None).part(fields, files)
    assert part is not None
    assert list(part["top_logprobs"][0].values()) == [-1.0, -2.0, -7.0]
    content = chat_logprobs(fields, files)["content"]  # type: ignore[index]
    assert [entry["logprob"] for entry in content[0]["top_logprobs"]] == [-1.0, -2.0, -7.0]


def test_a_log_probability_that_the_engine_lacks_is_none_not_zero() -> None:
    """TensorRT-LLM has none of a forced token; over Triton that is NaN, in JSON null."""
    inputs = read_inputs(
        {"input_ids": [1], "return_log_probs": True, "return_output_ids": True}, max_seq_len=1024
    )
    request = Request("r", (1,))
    submission = Submission(request, inputs, "", 0.0, None, None, lambda fields: None)
    tokens = (Token(5, "x", -0.5), Token(6, "y", None))
    update = Update("r", tokens, "xy", FinishReason.LENGTH)
    fields = Delivery(submission).fields(update, 0, 0)
    assert fields is not None
    assert fields["output_log_probs"] == [-0.5, None] and fields["cum_log_probs"] is None
    json.dumps(fields, allow_nan=False)
    part = CompletionLogprobs(1, "", None).part(fields, FILES)
    assert part is not None and part["token_logprobs"] == [-0.5, None]
    assert list(part["top_logprobs"][0].values()) == [-0.5] and part["top_logprobs"][1] is None


class Tensor:
    name, datatype, shape = "output_log_probs", "FP32", [2]


class Response:
    outputs = [Tensor]  # noqa: RUF012
    raw_output_contents = [struct.pack("<2f", -0.5, math.nan)]  # noqa: RUF012


def test_nan_in_a_tensor_of_triton_is_none() -> None:
    assert output_fields(Response) == {"output_log_probs": [-0.5, None]}
