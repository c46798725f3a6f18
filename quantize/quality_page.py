"""A self-contained HTML page of a quality report: a table and the error of every layer."""

from html import escape

from nemotrt.quantize.evaluate import Quality

BAR_WIDTH, BAR_GAP, HEIGHT = 14, 4, 180
COLOURS = {"mamba": "#2a7f62", "mlp": "#6c7fa8", "attention": "#c8553d"}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; max-width: 70rem }
table { border-collapse: collapse } th, td { padding: .3rem .8rem; text-align: right }
th { border-bottom: 1px solid #999 } td:first-child, th:first-child { text-align: left }
svg { max-width: 100%; height: auto } .key span { margin-right: 1.2rem }
"""


def quality_page(quality: Quality) -> str:
    """Return the page as HTML; it loads nothing from elsewhere."""
    rows = "".join(
        f"<tr><td>{escape(text.name)}</td><td>{text.num_tokens}</td>"
        f"<td>{text.reference_perplexity:.3f}</td><td>{text.perplexity:.3f}</td>"
        f"<td>{text.perplexity / text.reference_perplexity - 1:+.3%}</td>"
        f"<td>{text.mean_kl_divergence:.5f}</td><td>{text.top1_agreement:.2%}</td></tr>"
        for text in quality.texts
    )
    heads = ("text", "tokens", "reference perplexity", "perplexity", "change", "KL, nats", "top-1")
    head = "".join(f"<th>{name}</th>" for name in heads)
    key = "".join(
        f'<span style="color:{colour}">&#9632; {k}</span>' for k, colour in COLOURS.items()
    )
    title = f"{escape(quality.candidate)}: {escape(quality.quant_algo)}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style><h1>{title}</h1><p>against {escape(quality.reference)}</p>"
        f"<table><tr>{head}</tr>{rows}</table>"
        f"<h2>Error of each layer</h2><p>Relative error of what the layer adds to the residual "
        f'stream, on the reference\'s input.</p><p class="key">{key}</p>{_bars(quality)}</html>'
    )


def _bars(quality: Quality) -> str:
    """Return an SVG bar for every layer, in model order."""
    layers = sorted(quality.layers, key=lambda layer: layer.layer)
    top = max((layer.relative_error for layer in layers), default=0.0) or 1.0
    width = 60 + len(layers) * (BAR_WIDTH + BAR_GAP)
    parts = [
        f'<line x1="50" x2="{width}" y1="{y}" y2="{y}" stroke="#ddd"/>'
        f'<text x="44" y="{y + 4}" font-size="11" text-anchor="end">{value:.3f}</text>'
        for value, y in ((top, 10), (top / 2, 10 + HEIGHT / 2), (0.0, 10 + HEIGHT))
    ]
    for place, layer in enumerate(layers):
        size = HEIGHT * layer.relative_error / top
        x = 55 + place * (BAR_WIDTH + BAR_GAP)
        parts.append(
            f'<rect x="{x}" y="{10 + HEIGHT - size:.1f}" width="{BAR_WIDTH}" height="{size:.1f}" '
            f'fill="{COLOURS[layer.kind]}"><title>layer {layer.layer}, {layer.kind}: '
            f"{layer.relative_error:.4f}</title></rect>"
            f'<text x="{x + BAR_WIDTH / 2}" y="{HEIGHT + 24}" font-size="9" text-anchor="middle">'
            f"{layer.layer}</text>"
        )
    return f'<svg viewBox="0 0 {width} {HEIGHT + 30}" width="{width}">{"".join(parts)}</svg>'
