"""The report in a real Chromium without a network: nothing fetched, no fault, all readable."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser

from nemotrt.profiles.hardware.nvml.gpu_trace import GpuFacts, GpuSample, GpuTrace
from nemotrt.profiles.reports.comparison import write_comparison
from nemotrt.profiles.reports.page import write_html
from nemotrt.profiles.runs.record.prediction import Prediction
from nemotrt.profiles.runs.record.result import ProfileResult
from nemotrt.profiles.verdict.judge import judge
from nemotrt.profiles.verdict.page import write_verdict
from support.chromium import chromium
from support.simulated_run import simulate

pytestmark = pytest.mark.slow

# What a reader would stumble over: text outside its drawing, texts of a drawing on each other, a
# page wider than the window, and text that hardly differs from its ground (WCAG asks for 4.5).
FAULTS = """() => {
  const faults = [];
  const wide = document.documentElement.scrollWidth - window.innerWidth;
  if (wide > 0) faults.push(`the page is ${wide} px wider than the window`);
  for (const svg of document.querySelectorAll('svg')) {
    const name = svg.getAttribute('aria-label'), frame = svg.getBoundingClientRect();
    const boxes = [...svg.querySelectorAll('text')]
      .map(text => [text.textContent, text.getBoundingClientRect()]);
    boxes.forEach(([text, box], i) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 ||
          box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        faults.push(`${name}: ${text} is outside`);
      for (const [other, there] of boxes.slice(i + 1))
        if (box.left < there.right - 1 && there.left < box.right - 1 &&
            box.top < there.bottom - 2 && there.top < box.bottom - 2)
          faults.push(`${name}: ${text} is on ${other}`);
    });
  }
  const light = color => {
    const parts = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * parts[0] + .7152 * parts[1] + .0722 * parts[2];
  };
  const ground = element => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = 'h1, h2, p, td, th, small, b, span, figcaption, svg text';
  for (const element of document.querySelectorAll(texts)) {
    const style = getComputedStyle(element);
    const color = element.closest('svg') ? style.fill : style.color;
    const [a, b] = [light(color), light(ground(element))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5)
      faults.push(`${element.tagName} ${color}: too little contrast`);
  }
  return [...new Set(faults)];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def gpu_trace(end_s: float) -> GpuTrace:
    facts: dict[str, Any] = dict.fromkeys(GpuFacts.model_fields)
    samples = [
        GpuSample(
            at_s=at_s,
            power_w=200 + 60 * np.sin(at_s),
            sm_utilization_percent=95,
            memory_utilization_percent=70,
            memory_used_bytes=20 << 30,
            sm_clock_mhz=1410 + round(60 * np.cos(at_s)),
            memory_clock_mhz=6251,
            temperature_c=60,
            throttle_reasons=0,
        )
        for at_s in np.arange(0, end_s + 0.2, 0.1)
    ]
    facts |= {"index": 0, "is_mig": False, "name": "simulated"}
    return GpuTrace(
        facts=GpuFacts(**facts),
        samples=tuple(samples),
        interval_s=0.1,
        sampler_cpu_share=0.01,
        num_missed=0,
    )


def rich_run() -> ProfileResult:
    """Every part that a page may have: GPU, prediction, notes, Japanese."""
    run = simulate(3, users=4, osl=200, per_user=6, ms_per_held_token=0.02, noise=0.02)
    parts = dict.fromkeys(("weights", "attention", "ssm", "elementwise", "overhead"), 2.0)
    plan = Prediction(
        gpu="simulated",
        model="m",
        precision="bf16",
        batch_size=4,
        tokens_per_s_low=200.0,
        tokens_per_s=300.0,
        tokens_per_s_high=400.0,
        ttft_ms=40.0,
        tpot_ms=11.0,
        decode_step_ms=parts | {"interconnect": 0.0, "total": 10.0},
        bound_by="weights",
        limited_by="memory",
        notes=(),
    )
    assert run.window_s is not None
    trace = gpu_trace(run.duration_s)
    gpu = {"gpus": (trace,), "energy": (trace.energy(*run.window_s),)}
    notes = ("The clock of GPU 0 was not held.", "日本語の注記です。")
    return run.model_copy(update=gpu | {"prediction": plan, "notes": notes})


def baseline_run() -> ProfileResult:
    """A slower engine of another model in other numbers, on the same GPU."""
    run = simulate(5, users=4, osl=200, per_user=6, speed=0.5, noise=0.02)
    trace = gpu_trace(run.duration_s)
    target = run.target | {"model": "qwen3", "precision": "int8-wo"}
    return run.model_copy(update={"target": target, "gpus": (trace,)})


def failed_run() -> ProfileResult:
    return simulate(4, users=1, osl=20, per_user=2, status="failed", reason="it stalled.")


def write(kind: str, path: Path) -> None:
    match kind:
        case "run":
            write_html(rich_run(), path)
        case "failed":
            write_html(failed_run(), path)
        case "comparison":
            runs = [simulate(n, users=n, osl=40, per_user=2) for n in (1, 2, 4, 8)]
            write_comparison([*runs, failed_run()], path)
        case "verdict":
            sides = [rich_run()], [baseline_run()]
            verdict = judge(*sides, target=6.3, is_given_concurrency=True)
            write_verdict(verdict, *sides, path)


@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["run", "failed", "comparison", "verdict"])
def test_it_opens_alone_and_reads_well(browser: Browser, tmp_path, kind, scheme, width) -> None:
    path = tmp_path / "report.html"
    write(kind, path)
    context = browser.new_context(
        offline=True, color_scheme=scheme, viewport={"width": width, "height": 900}
    )
    page = context.new_page()
    told: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda fault: told.append(str(fault)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert told == []
    assert requests == [path.as_uri()]
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 3 * 128) == (scheme == "dark")
    assert page.evaluate(FAULTS) == []
    context.close()


@pytest.mark.parametrize(("kind", "most"), [("run", 5), ("comparison", 1), ("verdict", 2)])
def test_it_prints_on_few_sheets(browser: Browser, tmp_path, kind, most) -> None:
    """Sections go on over sheets: one that must not break leaves half a sheet white."""
    path = tmp_path / "report.html"
    write(kind, path)
    page = browser.new_page()
    page.goto(path.as_uri())
    assert 1 <= page.pdf(prefer_css_page_size=True).count(b"/Type /Page\n") <= most
    page.close()
