"""A self-contained HTML page of a quality report: tables, and the error of every layer as bars."""

from html import escape
from pathlib import Path

from nemotrt.charts.page import page, plots, table
from nemotrt.charts.spec import About, Bars
from nemotrt.quantize.quality.quality import LayerError, Quality, TextQuality

KINDS = ("mamba", "mlp", "attention")
MAX_LAYERS, MAX_LINEARS = 10, 20


def quality_page(quality: Quality) -> str:
    """Return the page as HTML; it loads nothing from elsewhere."""
    what = f"{quality.backend} engine, " if quality.backend else ""
    title = f"{Path(quality.candidate).name}: {what}{quality.precision}"
    about = About(title, f"{Path(quality.candidate).name} against {Path(quality.reference).name}")
    return page(about, _texts(quality) + _inside(quality))


def _texts(quality: Quality) -> str:
    """Return the table of texts."""
    heads = ("text", "tokens", "reference perplexity", "perplexity", "change", "KL, nats", "top-1")
    rows = tuple(_figures(text) for text in quality.texts)
    left_out = [f"{x.left_out_tokens} of {x.name}" for x in quality.texts if x.left_out_tokens]
    note = f"<p>Tokens left out: {escape(', '.join(left_out))}.</p>" if left_out else ""
    spread = "A mean &plusmn; one standard error of it."
    if not any(text.standard_errors for text in quality.texts):
        spread = "Too few windows for standard errors."
    return f"{table(heads, rows)}<p>{spread}</p>{note}"


def _figures(text: TextQuality) -> tuple[str, ...]:
    """Return a text's row; too few windows have no errors."""
    errors = text.standard_errors
    told = (
        (f"{text.reference_perplexity:.3f}", errors and f"{errors.reference_perplexity:.3f}"),
        (f"{text.perplexity:.3f}", errors and f"{errors.perplexity:.3f}"),
        (
            f"{text.perplexity / text.reference_perplexity - 1:+.3%}",
            errors and f"{errors.change:.3%}",
        ),
        (f"{text.mean_kl_divergence:.5f}", errors and f"{errors.mean_kl_divergence:.5f}"),
        (f"{text.top1_agreement:.2%}", errors and f"{errors.top1_agreement:.2%}"),
    )
    figures = (f"{mean} \u00b1 {error}" if error else mean for mean, error in told)
    return (text.name, str(text.num_tokens), *figures)


def _inside(quality: Quality) -> str:
    """Return the errors of layers and linears, or why there are none."""
    if quality.backend:
        return (
            "<p>An engine shows logits only: evaluate the checkpoint that it was built from for "
            "the error of each layer and linear.</p>"
        )
    layers = sorted(quality.layers, key=lambda layer: layer.layer)
    body = (
        "<h2>Error of each layer</h2><p>Relative error of what the layer adds to the residual "
        f"stream, on the reference's input.</p>{plots([_bars(layers)])}"
        f"{_worst_layers(quality)}"
    )
    if not quality.linears:
        return body
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
        f"{body}<h2>Worst linears</h2><p>Relative RMS errors on the reference's input; "
        f"{len(worst)} of {len(quality.linears)}, largest error of the output first.</p>"
        f"{table(heads, rows)}"
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
    return f"<p>The {len(worst)} worst of {len(quality.layers)}:</p>{table(heads, rows, 2)}"


def _bars(layers: list[LayerError]) -> Bars:
    """Return a bar for every layer, in model order, coloured by its kind."""
    present = [kind for kind in KINDS if any(layer.kind == kind for layer in layers)]
    return Bars(
        "Relative error of each layer",
        "relative error",
        tuple(str(layer.layer) for layer in layers),
        tuple(
            (kind, tuple(layer.relative_error * (layer.kind == kind) for layer in layers))
            for kind in present
        ),
        is_upright=True,
    )
