"""The page is whole, self-contained and well-formed, whatever the names in it."""

from html.parser import HTMLParser

import numpy as np
import pytest

from nemotrt.quantize.quality.quality import LayerError, LinearError, Quality, Tally, TextQuality
from nemotrt.quantize.quality.quality_page import MAX_LAYERS, MAX_LINEARS, quality_page

TEXT = TextQuality("<b>en</b>", 10, 8.0, 8.8, 0.01, 0.95)
LAYERS = tuple(
    LayerError(n, "mlp" if n % 2 else "mamba", 0.1 / (n + 1), {"<b>en</b>": 0.0625}, 0.2)
    for n in range(56)
)
LINEARS = tuple(LinearError(n, f"layers.{n}", 0.1, 0.2, 0.3) for n in range(30))
VOID = {"meta", "line"}


class Balance(HTMLParser):
    """Counts tags and keeps what is open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.counts: dict[str, int] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        assert not any(name in ("src", "href") for name, _ in attrs)
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


def test_a_checkpoints_page() -> None:
    page = quality_page(Quality("ref", "a/<x>", None, "FP8", (TEXT,), LAYERS, LINEARS))
    found = Balance(page)
    assert found.stack == [] and found.counts["rect"] == 56
    assert found.counts["tr"] == 2 + (1 + MAX_LAYERS) + (1 + MAX_LINEARS)
    assert page.count("0.0625") == MAX_LAYERS and "The 10 worst of 56" in page
    assert "<b>en" not in page and "&lt;b&gt;en" in page and "&lt;x&gt;" in page
    assert "+10.000%" in page and "95.00%" in page
    assert "20 of 30" in page and "attention</span>" not in page
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_an_engines_page_has_no_layers() -> None:
    page = quality_page(Quality("ref", "e", "onnxruntime", "int8-wo", (TEXT,)))
    assert "e: onnxruntime engine, int8-wo" in page and "logits only" in page
    assert "svg" not in Balance(page).counts


def test_a_tallys_figures_by_hand() -> None:
    """Two positions: p = (1/2, 1/2) against q = (1/4, 3/4), then equal ones."""
    tally = Tally("x")
    logits = np.log(np.array([[0.5, 0.5], [0.2, 0.8]], np.float32))
    other = np.log(np.array([[0.25, 0.75], [0.2, 0.8]], np.float32)) + 7  # a shift changes nothing
    tally.add(logits, other, np.array([0, 1]))
    found = tally.result()
    assert found.reference_perplexity == pytest.approx((0.5 * 0.8) ** -0.5, rel=1e-5)
    assert found.perplexity == pytest.approx((0.25 * 0.8) ** -0.5, rel=1e-5)
    divergence = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert found.mean_kl_divergence == pytest.approx(divergence / 2, rel=1e-5)
    assert (found.top1_agreement, found.num_tokens) == (0.5, 2)  # of two equals the first counts


def test_a_tiny_divergence_is_not_negative() -> None:
    """1e-4 of noise on 1000 logits: about half its square, far below float32's cancellation."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((50, 1000)).astype(np.float32)
    other = logits + rng.standard_normal(logits.shape).astype(np.float32) * np.float32(1e-4)
    tally = Tally("x")
    tally.add(logits, other, np.zeros(50, np.int64))
    first, second = (np.float64(value) for value in (logits, other))
    p, q = (np.exp(value) / np.exp(value).sum(1, keepdims=True) for value in (first, second))
    expected = float((p * np.log(p / q)).sum(1).mean())
    assert tally.result().mean_kl_divergence == pytest.approx(expected, rel=0.02)
