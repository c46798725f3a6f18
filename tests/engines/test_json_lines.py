"""JSON Lines in every reader: text that looks like a line's end is text."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nemotrt.errors import NemotrtError
from nemotrt.files.json_lines import json_lines
from nemotrt.profiles.load.choice.trace import read_trace
from nemotrt.profiles.runs.imports.aiperf import read_records
from nemotrt.quantize.calibration.texts import read_texts

ODD = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei\ufeffj"
TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=20) | st.just(ODD), max_size=6)
quick = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(
    texts=TEXTS, ascii_only=st.booleans(), bom=st.booleans(), end=st.sampled_from(["\n", "\r\n"])
)
@example(texts=[ODD], ascii_only=False, bom=True, end="\n")
@quick
def test_texts_come_back_as_they_were(
    tmp_path: Path, texts: list[str], ascii_only: bool, bom: bool, end: str
) -> None:
    lines = [json.dumps({"text": text}, ensure_ascii=ascii_only) for text in texts]
    path = tmp_path / "a.JSONL"
    path.write_bytes(("\ufeff" * bom + f"{end}{end}".join([*lines, ""])).encode())
    assert read_texts(path) == texts
    path.with_suffix(".txt").write_bytes(("\ufeff" * bom + ODD).encode())
    assert read_texts(path.with_suffix(".txt")) == [ODD]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": null}', "line 2 has text None"),
        ('{"text": 5}', "line 2 has text 5"),
        ('{"text": ["a"]}', r"line 2 has text \['a'\]"),
        ('{"txt": "a"}', "line 2 has text None"),
        ('{"text": "\\ud800"}', "line 2 has a text that is no Unicode"),
        ('"text"', "line 2 is not a JSON object"),
        ("null", "line 2 is not a JSON object"),
        ("{", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
    ],
)
def test_what_is_no_text_is_refused_by_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(NemotrtError, match=rf"a\.jsonl, {message}.*expected"):
        read_texts(path)


TRACE = {"timestamp": 5, "input_length": 3, "output_length": 2, "user": ODD}
AIPERF = {
    "metadata": {"request_start_ns": 10**9, "worker_id": ODD},
    "metrics": {
        "time_to_first_token": {"value": 1.0},
        "input_sequence_length": {"value": 3},
        "output_sequence_length": {"value": 2},
    },
}


@pytest.mark.parametrize(("reader", "record"), [(read_trace, TRACE), (read_records, AIPERF)])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_the_other_readers_take_the_same_lines(
    tmp_path: Path, reader: Any, record: dict[str, Any], bom: bytes
) -> None:
    path = tmp_path / "a.jsonl"
    line = json.dumps(record, ensure_ascii=False).encode()
    path.write_bytes(bom + line + b"\r\n\n" + line)
    assert len(reader(path)) == 2
    path.write_bytes(line + b"\nnull\n")
    with pytest.raises(NemotrtError):
        reader(path)
    path.write_bytes(b"\xff\xfe" + line)
    with pytest.raises(NemotrtError):
        reader(path)


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": float("nan")},
        {"timestamp": float("inf")},
        {"timestamp": None},
        {"timestamp": True},
        {"input_length": True},
        {"input_length": None},
        {"output_length": 0},
        {"output_length": 2.0},
    ],
    ids=str,
)
def test_a_trace_s_numbers_are_numbers(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(json.dumps(TRACE | change))
    with pytest.raises(NemotrtError, match="timestamp must be milliseconds"):
        read_trace(path)


def test_numbers_are_the_file_s_own() -> None:
    assert list(json_lines(b'\n{"a": 1}\n \n{"b": 2}')) == [(2, {"a": 1}), (4, {"b": 2})]
