"""The journal of a run: what comes back is what was written, wherever the kill cut it off."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.profiles.load.exchange import Exchange, Phase
from nemotrt.profiles.runs.record.journal import (
    ARRIVALS_FILE,
    REQUESTS_FILE,
    Journal,
    check_journal,
    journal_folder,
    read_journal,
)

START_S = 1000.0


def exchange(index, gaps_s, *, ended=True):
    made = Exchange(index, Phase.MEASURED, 8, len(gaps_s))
    made.mark_sent(START_S + 0.1 * index)
    at_s = made.sent_s
    for gap_s in gaps_s:
        at_s += gap_s
        made.add(at_s, 1)
    if ended:
        made.ended_s, made.finish_reason = at_s, "length"
    return made


def unfold(exchanges):
    """Yield the exchanges as they were after each arrival, all side by side."""
    steps = max(len(e.arrivals_s) for e in exchanges)
    copies = [Exchange(e.index, e.phase, e.isl, e.osl) for e in exchanges]
    for copy, e in zip(copies, exchanges, strict=True):
        copy.mark_sent(e.sent_s)
    yield copies
    for step in range(steps):
        for copy, e in zip(copies, exchanges, strict=True):
            if step < len(e.arrivals_s):
                copy.add(e.arrivals_s[step], e.arrival_tokens[step])
            if step == len(e.arrivals_s) - 1 and e.ended_s is not None:
                copy.ended_s, copy.finish_reason = e.ended_s, e.finish_reason
        yield copies


GAPS = st.lists(st.floats(0, 10), min_size=1, max_size=6)


@given(st.lists(GAPS, min_size=1, max_size=4))
def test_what_was_recorded_comes_back(tmp_path_factory, gaps):
    exchanges = [exchange(index, item) for index, item in enumerate(gaps)]
    folder = tmp_path_factory.mktemp("journal") / "j"
    journal = Journal(folder, {"a": 1})
    for now in unfold(exchanges):
        journal.update(now, START_S)
    journal.close()
    head, requests = read_journal(folder)
    assert head == {"a": 1}
    for e, found in zip(exchanges, requests, strict=True):
        assert found["index"] == e.index
        assert found["arrivals_s"] == pytest.approx([t - START_S for t in e.arrivals_s], abs=1e-6)
        assert found["arrival_tokens"] == e.arrival_tokens
        assert found["ended_s"] == pytest.approx(e.ended_s - START_S, abs=1e-6)
        assert found["finish_reason"] == "length"


def written(folder: Path):
    journal = Journal(folder, {})
    exchanges = [exchange(0, [0.1, 0.2, 0.3]), exchange(1, [0.4, 0.5], ended=False)]
    for now in unfold(exchanges):
        journal.update(now, START_S)
    journal.close()


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_cut_leaves_what_came_before_it(tmp_path_factory, share_of_lines, share_of_arrivals):
    folder = tmp_path_factory.mktemp("journal") / "j"
    written(folder)
    for name, share in ((REQUESTS_FILE, share_of_lines), (ARRIVALS_FILE, share_of_arrivals)):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(share * len(data))])
    _, requests = read_journal(folder)
    for request, gaps in zip(requests, ([0.1, 0.2, 0.3], [0.4, 0.5]), strict=False):
        times = [0.1 * request["index"] + sum(gaps[: i + 1]) for i in range(len(gaps))]
        count = len(request["arrivals_s"])
        assert request["arrivals_s"] == pytest.approx(times[:count], abs=1e-5)


def test_an_open_request_has_no_end(tmp_path):
    written(tmp_path / "j")
    _, (ended, still_open) = read_journal(tmp_path / "j")
    assert ended["ended_s"] is not None
    assert still_open["ended_s"] is None
    assert still_open["arrival_tokens"] == [1, 1]


def test_tokens_that_are_counted_anew_at_the_end(tmp_path):
    journal = Journal(tmp_path / "j", {})
    made = exchange(0, [0.1, 0.2], ended=False)
    journal.update([made], START_S)
    made.ended_s, made.arrival_tokens = made.arrivals_s[-1], [3, 2]
    journal.update([made], START_S)
    journal.close()
    assert read_journal(tmp_path / "j")[1][0]["arrival_tokens"] == [3, 2]


def test_an_empty_journal_goes(tmp_path):
    Journal(tmp_path / "j", {}).close()
    assert not (tmp_path / "j").exists()


def test_a_killed_runs_journal_is_not_overwritten(tmp_path):
    folder = journal_folder(tmp_path / "run")
    written(folder)
    with pytest.raises(ConfigError, match="nemotrt report"):
        check_journal(folder, force=False)
    check_journal(folder, force=True)


def test_a_damaged_journal_is_refused(tmp_path):
    written(tmp_path / "j")
    (tmp_path / "j" / REQUESTS_FILE).write_text(json.dumps({"index": 0, "event": "ended"}) + "\n")
    with pytest.raises(ArtefactError, match="no journal"):
        read_journal(tmp_path / "j")
