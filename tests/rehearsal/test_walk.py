"""The path from a bare GPU host to the verdict, walked as the guide says, without a GPU."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.rehearsal import containers, guide
from support.rehearsal.driver import LABEL
from support.rehearsal.image import ROOT
from support.rehearsal.machine import Machine
from support.rehearsal.walk import SHORT, Kit, Walk, of

OUTCOMES = ("Not met", "Undecided", "Not comparable")  # the tiny models have no ratio of 6


# Greedy tokens of the plan under Triton, and of the CPU's engine on the same checkpoint.
COMPLETION = """python3 -c '
from openai import OpenAI
client = OpenAI(base_url="http://127.0.0.1:9000/v1", api_key="none")
answer = client.completions.create(
    model="nano", prompt="The engine", max_tokens=8, temperature=0
)
print(answer.choices[0].text)'"""
FETCH = ("pip download", "pip wheel")  # of step 3, where there is a network
ON_THE_CPU = """nemotrt build $NANO -o cpu-nano --max-batch-size 1 --max-seq-len 64 > cpu.log
nemotrt generate cpu-nano "The engine" --max-tokens 8"""


def check_verdict(home: Path, printed: str) -> None:
    """Whether the page and the lines say what was measured, and on what."""
    assert printed.startswith(OUTCOMES) or "is not met" in printed.splitlines()[0], printed
    assert "joules_per_token" in printed  # which NVML's counter gives
    page = (home / "verdict.html").read_text()
    for word in ("nemotron_h", "qwen3", LABEL, "joules_per_token", "packed-nano", "packed-qwen"):
        assert word in page, word


def check_records(home: Path) -> None:
    """Whether what is left behind says that it was no GPU."""
    executed = json.loads((home / "packed-nano/executed.json").read_text())
    assert LABEL in json.dumps(executed)
    results = list((home / "run-nano").glob("*/result.json"))
    assert results and all(LABEL in path.read_text() for path in results)


@pytest.mark.triton
def test_from_a_laptops_plan_to_the_verdict(sent: Walk) -> None:
    """The main path: sent plans are checked, served in a container, asked, measured, compared."""
    with sent.host() as host:
        doctor = of("3", "doctor")[0]
        told = sent.do(host, doctor).output
        assert f"A10G-{LABEL}" in told and "yes     run plans here (tensorrt)" in told
        checked = sent.do(host, of("7", "check packed-nano")[0]).output
        assert "Computed right here: packed-nano (tensorrt)." in checked
        for line in of("8", "compose"):
            sent.do(host, line)
        sent.do(host, of("8", "OpenAI")[0], shell=2)
        answer = host.run(COMPLETION, shell=2).check().output
        expected = host.run(ON_THE_CPU).check().output
        assert answer == expected and expected.strip()
        host.run("docker compose down").check()
        for line in of("10", "-o run-"):
            sent.do(host, line)
        compared = sent.do(host, of("11")[0]).output
    home = sent.kit.home("host")
    check_verdict(home, compared)
    check_records(home)


def serve_and_ask(walk: Walk, host: Machine) -> None:
    """Step 8 with our supervisor, and the second measurement of step 10, which is of its server."""
    walk.do(host, of("8", "nemotrt serve packed")[0])
    walk.do(host, of("8", "OpenAI")[0], shell=2)
    walk.do(host, of("10", "http://")[0], shell=2)
    walk.stop_all(host)


def pack_there(walk: Walk, host: Machine) -> None:
    """The end of step 6a: engines are sent without weights, and packed where those are."""
    for name in ("engine-nano", "engine-qwen"):
        source, target = walk.kit.home("laptop") / name, walk.kit.home("host") / "sent" / name
        shutil.copytree(source, target)
    for line in of("6a", "--checkpoint"):
        walk.do(host, line, folder="sent")


def build_here(walk: Walk, host: Machine, folder: str) -> None:
    """Step 6b, with the limits of step 5."""
    host.run(f"mkdir -p {folder} && [ {folder} = . ] || cp *.yaml {folder}").check()
    for line in of("6b"):
        walk.do(host, line, folder=folder)


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.parametrize("gpu", ["a10g", "a100", "h100"])
def test_every_command_of_the_guide(
    gpu: str, new_kit: Callable[[str], Kit], triton_runtime: None
) -> None:
    """In the page's order, but for what is told twice: two ways to send, two places to build."""
    walk = Walk(new_kit(gpu))
    ahead = walk.kit.has_ahead_of_time
    laptop_lines = [*of("4"), *of("5", "--write-limits"), *of("6a")[:5]] if ahead else []
    with walk.laptop() as laptop:
        for line in of("3", *FETCH):
            walk.do(laptop, line)
        for line in laptop_lines:
            walk.do(laptop, line)
            if line.text.endswith("qwen.yaml"):
                walk.make_limits_small("laptop")
    with walk.host() as host:
        for line in [*of("1"), *of("2"), *of("3")]:
            if not line.text.startswith(FETCH):
                walk.do(host, line, shell=3)  # a new one, which has no environment yet
        for line in [*of("4"), *of("5")]:
            walk.do(host, line)
        walk.make_limits_small("host")
        if ahead:
            pack_there(walk, host)
        build_here(walk, host, "built" if ahead else ".")
        for line in of("7"):
            walk.do(host, line)
        serve_and_ask(walk, host)
        if ahead:
            in_containers(walk, host)
        for line in [*of("10", "-o smoke", "-o run-"), *of("11"), *of("When")]:
            done = walk.do(host, line)
            if line.step == "11":
                check_verdict(walk.kit.home("host"), done.output)
    left = {line for line in guide.lines() if line not in {line for line, _ in walk.done}}
    skipped = [] if ahead else [*of("6a"), *of("8", "compose"), *of("9")]
    assert left == set(skipped)


def in_containers(walk: Walk, host: Machine) -> None:
    """What the page does with images: compose, then NVIDIA's with our front before its Triton."""
    for line in of("8", "compose"):
        walk.do(host, line)
    host.run("docker compose down").check()
    for line in of("9"):
        walk.do(host, line)
    host.run(COMPLETION.replace("nano", "llm"), shell=2).check()
    walk.stop_all(host)


def test_what_is_changed_is_in_the_guide() -> None:
    """A change that no longer meets the page's words would change nothing."""
    text = "\n".join(line.text for line in guide.lines())
    for long in SHORT:
        assert long in text, long
    assert {line.step for line in guide.lines()} >= {"", "6a", "6b", "11", "When"}


def test_a_container_has_what_its_image_has() -> None:
    """The variables of the last stage before the driver's."""
    text = (ROOT / "serve/deploy/Dockerfile").read_text()
    [line] = re.findall(r"^ENV (PATH=.*)$", text, re.MULTILINE)
    assert dict(word.split("=", 1) for word in line.split()) == containers.IMAGE_ENVIRONMENT
