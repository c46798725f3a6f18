"""A pytest plugin of a peer's suite: what each test asked our server, what came back, how it ended.

It knows nothing of the suites. It runs in the peer's own environment, and so imports nothing of
ours. Its line per test goes to the file that $SUITE_RECORD names.
"""

import importlib
import importlib.util
import json
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests

MOST_EXCHANGES = 40
CLIENTS = [
    importlib.import_module(name)
    for name in ("httpx", "httpx2")  # openai 3 stands on the second
    if importlib.util.find_spec(name)
]
RAISED = re.compile("^E +(.*)$", re.MULTILINE)
asked: list[dict] = []  # of the test that runs now


def note(method: str, path: str, status: int, body: bytes, sent: bytes | str | None) -> None:
    """Keep one exchange: of an answer that is an error, also what it says."""
    told = {"method": method, "path": path.partition("?")[0], "status": status}
    if status >= 400:
        error = fields_of(body).get("error")
        if isinstance(error, dict):
            told |= {name: error.get(name) for name in ("message", "param", "code")}
        told["fields"] = list(fields_of(sent))
    asked.append(told)
    del asked[:-MOST_EXCHANGES]


def fields_of(body: bytes | str | None) -> dict:
    """Return a JSON body that is an object; an empty one for any other."""
    try:
        told = json.loads(body or "null")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def sent_by(request: Any) -> bytes:
    """Return the body that was sent; that of a stream of parts can't be read again."""
    return getattr(request, "_content", b"")


def watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Note what goes through requests and httpx, which every suite's clients stand on."""
    send = requests.Session.send

    def of_requests(self, request, **kwargs):
        answer = send(self, request, **kwargs)
        body = answer.content if answer.status_code >= 400 else b""
        note(request.method, request.path_url, answer.status_code, body, request.body)
        return answer

    monkeypatch.setattr(requests.Session, "send", of_requests)
    for kind in CLIENTS:
        watch_client(monkeypatch, kind)


def watch_client(monkeypatch: pytest.MonkeyPatch, kind: ModuleType) -> None:
    """Note what goes through httpx, or through its successor."""
    send, send_async = kind.Client.send, kind.AsyncClient.send

    def of_client(self, request, **kwargs):
        answer = send(self, request, **kwargs)
        body = answer.read() if answer.status_code >= 400 else b""
        note(request.method, request.url.path, answer.status_code, body, sent_by(request))
        return answer

    async def of_async(self, request, **kwargs):
        answer = await send_async(self, request, **kwargs)
        body = await answer.aread() if answer.status_code >= 400 else b""
        note(request.method, request.url.path, answer.status_code, body, sent_by(request))
        return answer

    monkeypatch.setattr(kind.Client, "send", of_client)
    monkeypatch.setattr(kind.AsyncClient, "send", of_async)


def pytest_configure(config: pytest.Config) -> None:
    """Watch from the first import on."""
    watch(pytest.MonkeyPatch())


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin a test with nothing asked."""
    asked.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Write how a test ended, with the first fault of its phases."""
    report = yield
    if report.when == "call" or not report.passed:
        told = {"test": item.nodeid, "outcome": report.outcome, "when": report.when}
        told |= {"asked": list(asked), "fault": fault_of(report, call)}
        with Path(os.environ["SUITE_RECORD"]).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(told) + "\n")
    return report


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Write that a file can't even be read."""
    if report.failed:
        told = {"test": report.nodeid, "outcome": "failed", "when": "collect", "asked": []}
        told["fault"] = " ".join(RAISED.findall(str(report.longrepr)))
        with Path(os.environ["SUITE_RECORD"]).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(told) + "\n")


def fault_of(report: pytest.TestReport, call: pytest.CallInfo) -> str | None:
    """Return why a test was skipped, or the line that failed and what it raised."""
    if report.skipped:
        return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else "expected to fail"
    if call.excinfo is None:
        return None
    own = [one for one in call.excinfo.traceback if Path(one.path) == report_path(report)]
    where = (own or list(call.excinfo.traceback))[-1]
    line = str(where.statement).strip().splitlines()[0] if where.statement else ""
    raised = f"{call.excinfo.typename}: {str(call.excinfo.value).strip()}"
    return f"{line} <- {raised[:600]}"


def report_path(report: pytest.TestReport) -> Path:
    """Return the test's file."""
    return Path(report.fspath).resolve()
