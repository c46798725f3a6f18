"""A self-contained HTML page of a quality report: tables, and the error of every layer as bars."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

from nemotrt.quantize.quality.quality import LayerError, Quality

PLOT_WIDTH, MIN_PITCH, MAX_PITCH, HEIGHT = 880, 14, 36, 180
KINDS = ("mamba", "mlp", "attention")
MAX_LAYERS, MAX_LINEARS = 10, 20
STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --faint: #667; --line: #ccd;
  --mamba: #2a7f62; --mlp: #6c7fa8; --attention: #c8553d }
@media (prefers-color-scheme: dark) { :root { --ink: #dde; --paper: #16181d; --faint: #99a;
  --line: #3a3f4b; --mamba: #4fb892; --mlp: #8fa3d0; --attention: #e8836c } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1.5rem;
  max-width: 62rem; color: var(--ink); background: var(--paper) }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; margin-bottom: 0 }
h2 { font-size: 1.15rem; margin: 2rem 0 .3rem } p { margin: .3rem 0 1rem; color: var(--faint) }
.wide { overflow-x: auto } .wide + p { margin-top: 1rem }
code { font-size: .9em; overflow-wrap: anywhere }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--line) }
th { font-weight: 600; vertical-align: bottom } td { white-space: nowrap }
td:first-child, th:first-child { text-align: left; padding-left: 0 }
svg text { fill: var(--faint) } svg line { stroke: var(--line) }
.key span { margin-right: 1.2rem; white-space: nowrap }
@media print { :root { --ink: #000; --paper: #fff; --faint: #444; --line: #bbb;
  --mamba: #2a7f62; --mlp: #6c7fa8; --attention: #c8553d }
  body { margin: 0; padding: 0; max-width: none; font-size: 11px;
    -webkit-print-color-adjust: exact; print-color-adjust: exact }
  .wide { overflow: visible } svg { max-width: 100%; height: auto }
  tr, svg, h2 { break-inside: avoid } h2 { break-after: avoid } }
"""


def quality_page(quality: Quality) -> str:
    """Return the page as HTML; it loads nothing from elsewhere."""
    what = f"{quality.backend} engine, " if quality.backend else ""
    title = f"{escape(Path(quality.candidate).name)}: {escape(what + quality.precision)}"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        f"<p><code>{escape(quality.candidate)}</code> against "
        f"<code>{escape(quality.reference)}</code></p>{_texts(quality)}{_inside(quality)}</html>"
    )


def _texts(quality: Quality) -> str:
    """Return the table of texts."""
    heads = ("text", "tokens", "reference perplexity", "perplexity", "change", "KL, nats", "top-1")
    rows = (
        (
            text.name,
            str(text.num_tokens),
            f"{text.reference_perplexity:.3f}",
            f"{text.perplexity:.3f}",
            f"{text.perplexity / text.reference_perplexity - 1:+.3%}",
            f"{text.mean_kl_divergence:.5f}",
            f"{text.top1_agreement:.2%}",
        )
        for text in quality.texts
    )
    return _table(heads, rows)


def _inside(quality: Quality) -> str:
    """Return the errors of layers and linears, or why there are none."""
    if quality.backend:
        return (
            "<p>An engine shows logits only: evaluate the checkpoint that it was built from for "
            "the error of each layer and linear.</p>"
        )
    layers = sorted(quality.layers, key=lambda layer: layer.layer)
    present = [kind for kind in KINDS if any(layer.kind == kind for layer in layers)]
    key = "".join(f'<span><b style="color:var(--{k})">&#9632;</b> {k}</span>' for k in present)
    page = (
        "<h2>Error of each layer</h2><p>Relative error of what the layer adds to the residual "
        f'stream, on the reference\'s input.</p><p class="key">{key}</p>{_bars(layers)}'
        f"{_worst_layers(quality)}"
    )
    if not quality.linears:
        return page
    worst = quality.linears[:MAX_LINEARS]
    heads = ("linear", "layer", "weight", "input", "output")
    rows = (
        (
            linear.name,
            str(linear.layer),
            f"{linear.weight_error:.4f}",
            f"{linear.input_error:.4f}",
            f"{linear.output_error:.4f}",
        )
        for linear in worst
    )
    return (
        f"{page}<h2>Worst linears</h2><p>Relative RMS errors on the reference's input; "
        f"{len(worst)} of {len(quality.linears)}, largest error of the output first.</p>"
        f"{_table(heads, rows)}"
    )


def _worst_layers(quality: Quality) -> str:
    """Return the table of the worst layers, each text in a column of its own."""
    worst = quality.layers[:MAX_LAYERS]
    texts = [text.name for text in quality.texts]
    heads = ("layer", "kind", "error", *(f"on {name}" for name in texts), "stream after it")
    rows = (
        (
            str(layer.layer),
            layer.kind,
            f"{layer.relative_error:.4f}",
            *(f"{layer.by_text[name]:.4f}" for name in texts),
            f"{layer.stream_relative_error:.4f}",
        )
        for layer in worst
    )
    return f"<p>The {len(worst)} worst of {len(quality.layers)}:</p>{_table(heads, rows)}"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return an HTML table that scrolls by itself where it is too wide."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _bars(layers: list[LayerError]) -> str:
    """Return an SVG bar for every layer, in model order."""
    top = max((layer.relative_error for layer in layers), default=0.0) or 1.0
    pitch = min(MAX_PITCH, max(MIN_PITCH, PLOT_WIDTH // max(1, len(layers))))
    bar, width = pitch - 4, 60 + len(layers) * pitch
    parts = [
        f'<line x1="50" x2="{width}" y1="{y}" y2="{y}"/>'
        f'<text x="44" y="{y + 4}" font-size="11" text-anchor="end">{value:.3f}</text>'
        for value, y in ((top, 10), (top / 2, 10 + HEIGHT / 2), (0.0, 10 + HEIGHT))
    ]
    for place, layer in enumerate(layers):
        size = HEIGHT * layer.relative_error / top
        x = 55 + place * pitch
        parts.append(
            f'<rect x="{x}" y="{10 + HEIGHT - size:.1f}" width="{bar}" height="{size:.1f}" '
            f'fill="var(--{layer.kind})"><title>layer {layer.layer}, {layer.kind}: '
            f"{layer.relative_error:.4f}</title></rect>"
            f'<text x="{x + bar / 2}" y="{HEIGHT + 24}" font-size="9" text-anchor="middle">'
            f"{layer.layer}</text>"
        )
    image = f'<svg role="img" viewBox="0 0 {width} {HEIGHT + 30}" width="{width}">'
    return f'<div class="wide">{image}{"".join(parts)}</svg></div>'
