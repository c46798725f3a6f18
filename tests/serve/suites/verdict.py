"""What a test's end says of our server: passed, theirs alone, refused by name, a fault of ours."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

THEIRS = Path(__file__).with_name("theirs.yaml")
RETRYABLE = {501, 503}  # not faults: not implemented there, and come again


class Verdict(StrEnum):
    """How a test of a peer's suite is judged."""

    PASSED = "passed"
    THEIRS = "theirs alone"
    REFUSED = "refused by name"
    FAULT = "FAULT"


@dataclass(frozen=True, slots=True)
class Judged:
    """A test, its verdict, and the reason."""

    test: str
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """Tests that are a peer's alone.

    `fault` is found in how a test failed, so that it is still a fault of ours where it fails in
    another way. A test without one depends on what the model writes, and may pass too.
    """

    tests: str
    fault: str | None
    why: str

    def holds(self, record: Mapping[str, Any]) -> bool:
        """Whether a test ended as told here."""
        if not fnmatchcase(record["test"], self.tests):
            return False
        return self.fault is None or bool(re.search(self.fault, record["fault"] or "", re.DOTALL))


@dataclass(frozen=True, slots=True)
class Theirs:
    """What of a suite is the peer's alone."""

    endpoints: Mapping[str, str]  # by path
    rules: tuple[Rule, ...]

    @classmethod
    def of(cls, suite: str) -> "Theirs":
        """Return what theirs.yaml says of a suite."""
        told = yaml.safe_load(THEIRS.read_text("utf-8"))[suite]
        rules = (Rule(one["tests"], one.get("fault"), one["why"]) for one in told["tests"])
        return cls(told["endpoints"], tuple(rules))


def judge(record: Mapping[str, Any], theirs: Theirs) -> Judged:
    """Return the verdict on one record of the plugin's."""
    test, asked = record["test"], record["asked"]
    broken = [one for one in asked if one["status"] >= 500 and one["status"] not in RETRYABLE]
    if broken:
        return Judged(test, Verdict.FAULT, f"answered {broken[0]['status']}")
    for rule in theirs.rules:
        if rule.fault is None and rule.holds(record):
            return Judged(test, Verdict.THEIRS, rule.why)
    if record["outcome"] == "passed":
        return Judged(test, Verdict.PASSED)
    if record["outcome"] == "skipped":
        return Judged(test, Verdict.THEIRS, f"skipped there: {record['fault']}")
    last = asked[-1] if asked else None
    if last is not None and (name := refused_name(last)):
        return Judged(test, Verdict.REFUSED, name)
    if last is not None and last["status"] in (404, 405) and last["path"] in theirs.endpoints:
        return Judged(test, Verdict.THEIRS, theirs.endpoints[last["path"]])
    for rule in theirs.rules:
        if rule.holds(record):
            return Judged(test, Verdict.THEIRS, rule.why)
    return Judged(test, Verdict.FAULT, record["fault"] or "no reason was told")


def refused_name(asked: Mapping[str, Any]) -> str | None:
    """Return what an answer refuses: the field that it names, or the whole endpoint.

    Anthropic's errors have no place for the field, whose name begins the message instead.
    """
    if not 400 <= asked["status"] < 500:
        return None
    if asked.get("param"):
        return f"`{asked['param']}`"
    if asked.get("code") == "not_supported":
        return f"`{asked['path']}`"
    start = re.match(r"[a-z_]+", asked.get("message") or "")
    return f"`{start[0]}`" if start and start[0] in asked.get("fields", ()) else None
