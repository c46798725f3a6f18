"""`nemotrt profile`: its folder, its exit codes, and the page that it writes."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nemotrt.profiles.command import profile
from nemotrt.profiles.load.targets.options import read_extra, read_headers
from nemotrt.profiles.runs.record.result import read_result


def invoke(*args):
    return CliRunner().invoke(profile, [str(arg) for arg in args])


def test_an_engine_directory_is_measured(engine_folder, tmp_path):
    done = invoke(
        engine_folder, "-o", tmp_path / "run", "--isl", 30, "--osl", 8, "-c", 2, "-n", 4, "--json"
    )
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["schema_version"] == 1
    assert "requests" not in printed
    result = read_result(tmp_path / "run")
    assert result.status == "complete"
    measured = [r for r in result.requests if r.phase == "measured"]
    assert [r.num_output_tokens for r in measured] == [8] * 4
    assert all(len(r.arrivals_s) == 8 for r in measured)
    assert all(r.admitted_s is not None and r.admitted_s >= r.due_s for r in measured)
    assert 1 <= result.metric("batch_occupancy") <= 2
    assert result.target["max_batch_size"] == 8
    # what is recorded is what is reported: tokens in the window, over the window
    assert result.window_s is not None
    start_s, end_s = result.window_s
    inside = sum(start_s < a <= end_s for r in result.requests for a in r.arrivals_s)
    assert result.metric("tokens_per_s") == pytest.approx(inside / (end_s - start_s))


def test_a_table_goes_to_stdout(engine_folder, tmp_path):
    done = invoke(engine_folder, "-o", tmp_path / "run", "--isl", 8, "--osl", 1, "-n", 2)
    assert done.exit_code == 0, done.output
    assert re.search(r"^ttft_ms +ms +[\d.]+", done.stdout, re.M)
    assert re.search(r"^tpot_ms .*not computable: .*osl >= 2", done.stdout, re.M)
    assert "report.html" in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("nowhere",), 2, "not the URL of a server like http://127.0.0.1:8000, not an engine"),
        (("http://127.0.0.1:9", "--tokenizer", "tiny-dense"), 3, "nothing answers"),
        (("http://127.0.0.1:9",), 2, "--tokenizer"),
        (("ftp://127.0.0.1",), 2, "neither"),
    ],
)
def test_faults_have_their_exit_code(tmp_path, args, code, message):
    done = invoke(*args, "-o", tmp_path / "run")
    assert done.exit_code == code, done.output
    assert message in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_server_without_the_model_is_unfit(scripted, tmp_path):
    done = invoke(scripted.url, "--model", "x", "--tokenizer", "tiny-dense", "-o", tmp_path / "run")
    assert done.exit_code == 3
    assert "/v2/models/x/ready answered 404" in done.output


def test_a_request_beyond_the_limits_fails_the_run_and_keeps_the_rest(engine_folder, tmp_path):
    done = invoke(engine_folder, "-o", tmp_path / "run", "--isl", 4090, "--osl", 20, "-n", 1)
    assert done.exit_code == 1
    assert "the engine holds 4096" in done.output
    assert read_result(tmp_path / "run").status == "failed"
    assert "not complete" in (tmp_path / "run" / "report.html").read_text()


def test_a_folder_is_replaced_only_on_request(engine_folder, tmp_path):
    args = (engine_folder, "-o", tmp_path / "run", "--isl", 8, "--osl", 2, "-n", 1, "-q")
    assert invoke(*args).exit_code == 0
    assert invoke(*args).exit_code == 2
    assert invoke(*args, "--force").exit_code == 0
    (tmp_path / "other").mkdir()
    other = (engine_folder, "-o", tmp_path / "other", "--force")
    assert invoke(*other).exit_code == 2


class Page(HTMLParser):
    """Collects what a browser would fetch, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.words, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "data", "action")]

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_one_file_with_plots(engine_folder, tmp_path: Path):
    invoke(engine_folder, "-o", tmp_path / "run", "--isl", 8, "--osl", 8, "-n", 3, "-q")
    text = (tmp_path / "run" / "report.html").read_text()
    page = Page(text)
    assert page.links == []
    assert not re.search(r"https?://|@import|url\(", text)
    assert page.tags.count("svg") == 8
    assert "script" not in page.tags
    assert "NaN" not in text and "nan" not in re.findall(r'points="([^"]*)"', text)
    assert re.search(r"[\d.k]+ tokens/s at 8 tokens in, 8 out", " ".join(page.words))


def test_what_a_server_does_not_say_is_stated(scripted, engine_folder, tmp_path: Path) -> None:
    command = [scripted.url, "--tokenizer", "tiny-dense", "-o", tmp_path / "run", "-q"]
    command += ["--isl", 8, "--osl", 2, "-n", 2]
    done = invoke(*command, "--fact", "hardware=1 x H100", "--fact", "kv_cache=fp8")
    assert done.exit_code == 0, done.output
    target = read_result(tmp_path / "run").target
    assert (target["hardware"], target["kv_cache"]) == ("1 x H100", "fp8")
    wrong = invoke(*command, "--fact", "hardwar=x")
    assert wrong.exit_code == 2 and "did you mean 'hardware'" in wrong.output
    assert invoke(engine_folder, "--fact", "hardware=x").exit_code == 2


def test_a_header_is_its_text_and_an_extra_its_json() -> None:
    """`--header X-Flag=true` sends true, not Python's True."""
    ctx = click.Context(profile)
    param = profile.commands["run"].params[0]
    items = ("a=true", "b=1.0", "c=null", "d=x=y", 'e="q"', "f=")
    assert read_headers(ctx, param, items) == dict(item.split("=", 1) for item in items)
    extra = {"a": True, "b": 1.0, "c": None, "d": "x=y", "e": "q", "f": ""}
    assert read_extra(ctx, param, items) == extra
    for words in (["--header", "x"], ["--extra", "=1"]):
        result = CliRunner().invoke(profile, ["run", "http://127.0.0.1:9", *words])
        assert result.exit_code == 2 and "must be NAME=VALUE" in result.output
