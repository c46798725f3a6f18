"""`nemotrt demo`: the whole chain on the built-in tiny model, every part of it real."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotrt.commandline.shared import config_option, force_option, output_option, quiet_option
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.needs import install

if TYPE_CHECKING:
    from nemotrt.engines.opening import OpenEngine

# A prompt, the first seed, and how a sentence ends that the tiny model is to make of them.
PROMPTS = {
    "English": ("This option", 1, (". ", ".\n")),
    "Japanese": ("このコマンドは", 3, ("。",)),
}
MAX_TOKENS, MAX_SEEDS = 48, 20
PLAN = ("nemotron-nano-9b-v2", "--gpu", "a10g", "--baseline", "qwen3-8b", "--force", "--quiet")
ABOUT = """\
The text is of a model with 5.7 million parameters, trained for an hour on manuals. It shows that
every part works, not what a model can say. The A10G and A100 plans were compiled, not run."""


@dataclass(slots=True)
class Steps:
    """What was done, how long it took, and what it made."""

    folder: Path
    quiet: bool
    rows: list[tuple[str, float, str]] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """Time a step; the yielded function records what it made."""
        if not self.quiet:
            click.echo(f"{len(self.rows) + 1}. {title}", err=True)
        made: list[str] = []
        begin = time.perf_counter()
        yield made.append
        self.rows.append((title, time.perf_counter() - begin, "; ".join(made)))


@click.command()
@output_option("Folder for everything that is made.", default=Path("demo"))
@force_option
@quiet_option
@config_option
def demo(output: Path, force: bool, quiet: bool) -> None:
    """Run the whole chain on the built-in tiny model; it needs no GPU.

    A trained tiny Nemotron-H is quantized to INT8, built for the CPU, A10G and A100 (the plans are
    compiled, not run), asked for English and Japanese, served by Triton Inference Server and
    measured. About a minute on two cores.
    """
    from nemotrt.files.writing import check_target

    check_environment()
    check_target(output, force=force)
    print_table(run_demo(output, quiet=quiet), output)


def check_environment() -> None:
    """Raise EnvironmentUnfitError, with every missing part named, before anything is done."""
    from nemotrt.engines.backends.tensorrt.compile.flavour import RTX_MODULE
    from nemotrt.serve.triton.runtime import find_runtime

    missing = [] if find_spec(RTX_MODULE) else [f"TensorRT for RTX: {install('rtx')}"]
    try:
        find_runtime()
    except EnvironmentUnfitError as error:
        missing.append(error.message)
    if missing:
        raise EnvironmentUnfitError("the demo needs more than is installed: " + "; ".join(missing))


def run_demo(folder: Path, *, quiet: bool) -> Steps:
    """Do every step; each artefact in `folder` is replaced as a whole."""
    from nemotrt.build.backend_options import default_backend
    from nemotrt.build.engine_builder import BuildSpec, build_engine
    from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
    from nemotrt.engines.opening import open_engine
    from nemotrt.engines.runtime.engine import Limits
    from nemotrt.engines.tiny.models import TINY_MODELS
    from nemotrt.quantize.conversion.options import QuantizeOptions
    from nemotrt.quantize.recipes.recipe import load_recipe
    from nemotrt.quantize.writing.writer import quantize_checkpoint

    steps = Steps(folder, quiet)
    source, quantized = TINY_MODELS["tiny"], folder / "checkpoint-int8"
    limits = Limits(max_batch_size=8, max_seq_len=512, chunk_tokens=64)
    with steps.step("Read the checkpoint") as made:
        checkpoint = open_checkpoint(source)
        num_weights = sum(ref.map().size for ref in checkpoint.tensors.values())
        made(f"{checkpoint.config.pattern}, {num_weights / 1e6:.1f} M parameters")
    with steps.step("Quantize to INT8, weights only") as made:
        recipe, options = load_recipe("int8-wo"), QuantizeOptions(force=True)
        result = quantize_checkpoint(source, quantized, recipe, options)
        made(f"checkpoint-int8, {result.num_linears} linears, {result.target_bytes / 1e6:.1f} MB")
    with steps.step("Build the CPU engine") as made:
        build_engine(
            quantized,
            folder / "engine-cpu",
            BuildSpec(default_backend(None)[0], limits=limits),
            force=True,
        )
        made("engine-cpu")
    for gpu in ("a10g", "a100"):
        with steps.step(f"Compile the TensorRT plan for {gpu}") as made:
            target = folder / f"engine-{gpu}"
            spec = BuildSpec(default_backend(gpu)[0], gpu, limits=limits)
            manifest = build_engine(quantized, target, spec, force=True)
            made(f"engine-{gpu}, compute capability {manifest.compute_capability}, not executed")
    with steps.step("Open the CPU engine"):
        opened = open_engine(folder / "engine-cpu")
    for language, sentence in PROMPTS.items():
        with steps.step(f"Generate {language}") as made:
            made(_generate(opened, *sentence))
    opened.engine.close()
    with steps.step("Plan the 9B on an A10G, beside Qwen3-8B") as made:
        words = [
            sys.executable,
            "-m",
            "nemotrt",
            "plan",
            *PLAN,
            "--plot",
            str(folder / "plan.html"),
        ]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        made("plan.html, predicted")
    _serve_and_profile(steps)
    return steps


def _generate(opened: "OpenEngine", prompt: str, seed: int, ends: tuple[str, ...]) -> str:
    """Return the prompt and what the engine makes of it, up to the end of the sentence.

    A CPU's instruction set changes a sum's last bits and so what a seed draws: where that is no
    whole sentence, the next seeds have their turn.
    """
    from nemotrt.engines.runtime.sampling.params import SamplingParams
    from nemotrt.engines.runtime.scheduling.generation import generate

    assert opened.tokenizer is not None  # the built-in model has one
    ids, text = tuple(opened.tokenizer.encode(prompt)), ""
    for number in range(seed, seed + MAX_SEEDS):
        params = SamplingParams(
            max_tokens=MAX_TOKENS, temperature=0.5, top_p=0.9, seed=number,
            stop=ends, include_stop_str_in_output=True,
        )  # fmt: skip
        text = prompt + "".join(u.text for u in generate(opened.scheduler(), ids, params))
        if text.endswith(ends):
            break
    return " ".join(text.split())


def _serve_and_profile(steps: Steps) -> None:
    """Serve the CPU engine with tritonserver, measure it, write the report."""
    from nemotrt.profiles.load.targets.opening import open_target
    from nemotrt.profiles.load.targets.options import TargetOptions
    from nemotrt.profiles.load.workload import Workload
    from nemotrt.profiles.runs import measure
    from nemotrt.profiles.runs.run_folder import write_folder
    from nemotrt.serve.processes.launcher import serve_engine

    engine = steps.folder / "engine-cpu"
    workload = Workload(isl=64, osl=64, num_requests=16, concurrency=4, num_warmup=4)
    with ExitStack() as stack:
        with steps.step("Start tritonserver") as made:
            state = stack.enter_context(serve_engine(engine))
            address = state.http_url or state.openai_url  # with API keys Triton has no port
            made(f"ready at {address}")
        with steps.step("Measure it: 64 in, 64 out, 4 users") as made:
            options = TargetOptions(tokenizer=str(engine), headers=_key_header())
            result = measure.run(open_target(address, workload, options), workload)
            write_folder(result, steps.folder / "profile", force=True)
            made(
                f"profile/report.html: {result.metric('tokens_per_s'):.0f} tokens/s, "
                f"ttft {result.metric('ttft_ms'):.1f} ms, tpot {result.metric('tpot_ms'):.1f} ms"
            )


def _key_header() -> dict[str, str]:
    """Return what a request to our server must carry: a key, if the environment has any."""
    from nemotrt.serve.front.http.access import environment_keys

    keys = environment_keys()
    return {"Authorization": f"Bearer {keys[0]}"} if keys else {}


def print_table(steps: Steps, output: Path) -> None:
    """Print every step with its time and what it made."""
    from rich.console import Console
    from rich.table import Table

    table = Table("step", "seconds", "result", title=f"nemotrt demo: {output}")
    table.columns[1].justify, table.columns[2].overflow = "right", "fold"
    for title, seconds, made in steps.rows:
        table.add_row(title, f"{seconds:.1f}", made)
    total = sum(seconds for _, seconds, _ in steps.rows)
    table.add_row("total", f"{total:.1f}", "", style="bold")
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(
        f"{ABOUT}\n\nLook at\n  {output / 'profile' / 'report.html'}\n  {output / 'plan.html'}\n"
        f"and talk with it: nemotrt chat {output / 'engine-cpu'}",
        highlight=False,
    )
