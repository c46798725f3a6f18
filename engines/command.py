"""`nemotrt generate`."""

import json
import math
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

import click

from nemotrt.commandline.kinds import COUNT
from nemotrt.commandline.options import options_of
from nemotrt.commandline.shared import config_option
from nemotrt.engines.artefact.named import ENGINE, engine_folder, rebuild_option
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.checkpoint.hub.parameter import offline_option
from nemotrt.engines.checkpoint.lora.named import adapter_option, chosen_adapter
from nemotrt.errors import ConfigError, NemotrtError
from nemotrt.wire.request import NUMBERS

Command = TypeVar("Command", bound=Callable[..., Any])


def token_bias(value: str) -> tuple[int, float]:
    """Return a token's id and what is added to its logit; the engine knows which ids there are.

    Raises:
        click.BadParameter: it is not of the form 42=-5.5.
    """
    token, _, written = value.partition("=")
    try:
        number, bias = int(token), float(written)
    except ValueError:
        number, bias = -1, math.nan
    if not (token.isascii() and token.isdigit() and math.isfinite(bias)):
        raise click.BadParameter(f"{value!r} is not a token id and a number, like 42=-5.5.")
    return number, bias


def number_options(function: Command) -> Command:
    """Give a command an option for each plain number of sampling."""
    for name, told in reversed(NUMBERS.items()):
        option = f"--{name.replace('_', '-')}"
        function = click.option(option, type=float, default=told.neutral, help=told.help)(function)
    return function


@click.command()
@click.argument("engine", type=ENGINE)
@click.argument("prompt", required=False)
@click.option("--prompt-ids", help="Token ids instead of a prompt: 5,9,12.")
@click.option("--chat", is_flag=True, help="PROMPT is a user's turn: apply the chat template.")
@click.option("--system", default=None, help="System turn, with --chat (such as /no_think).")
@click.option("--stream", is_flag=True, help="Print the text as it comes.")
@click.option(
    "--max-tokens", type=COUNT, default=None, help="Most tokens of the answer.  [default: 128]"
)
@click.option(
    "--min-tokens", type=click.IntRange(0), default=0, help="Tokens before the answer may end."
)
@click.option("--temperature", type=float, default=None, help="0 is greedy.")
@click.option("--top-p", type=float, default=None, help="Share of probability to choose from.")
@click.option("--top-k", type=int, default=None, help="0 keeps every token.")
@click.option("--seed", type=int, default=None, help="Makes sampling repeatable.")
@number_options
@click.option(
    "--logit-bias",
    type=token_bias,
    multiple=True,
    metavar="ID=BIAS",
    help="Add BIAS to the logit of token ID; may be repeated. -100 bans a token, 100 forces it.",
)
@click.option("--stop", multiple=True, help="End at this text; may be repeated.")
@click.option("--ignore-eos", is_flag=True, help="Go on past the end-of-sequence token.")
@click.option(
    "--logprobs",
    type=click.IntRange(0, 100),
    default=None,
    metavar="N",
    help="Log-probabilities of each token and the N likeliest, with --json.",
)
@click.option(
    "--prompt-logprobs",
    type=click.IntRange(0, 100),
    default=None,
    metavar="N",
    help="Log-probabilities of each prompt token and the N likeliest, with --json.",
)
@options_of(OpenOptions)
@adapter_option
@rebuild_option
@click.option("--json", "as_json", is_flag=True, help="Print tokens, text and usage as JSON.")
@offline_option
@config_option
def generate(
    engine: str,
    prompt: str | None,
    prompt_ids: str | None,
    chat: bool,
    system: str | None,
    stream: bool,
    max_tokens: int | None,
    open_options: OpenOptions,
    adapter: str | None,
    rebuild: bool,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Generate text with ENGINE from PROMPT ("-" reads it from stdin).

    ENGINE is an engine directory, or a checkpoint (a folder, OWNER/NAME[@REVISION] on the hub, or
    tiny), whose engine for the CPU is built into the cache, once.

    With --chat the model card's settings hold (Nemotron Nano: temperature 0.6 and top-p 0.95 with
    reasoning, greedy without). Without --chat the default is greedy.
    """
    from nemotrt.engines.opening import open_engine
    from nemotrt.engines.prompt import GivenPrompt, prepare
    from nemotrt.engines.runtime.request import FinishReason
    from nemotrt.engines.runtime.sampling.params import SamplingParams
    from nemotrt.engines.runtime.scheduling import generation

    if prompt == "-":
        prompt = sys.stdin.read()
    wanted = GivenPrompt(prompt, prompt_ids, chat, system)
    wanted.check()
    for name in ("logprobs", "prompt_logprobs"):
        if sampling[name] is not None and not as_json:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} needs --json: a text has no place for them.")
    if stream and as_json:
        raise ConfigError("--stream and --json exclude each other.")
    chosen = chosen_adapter(open_options.lora, adapter)
    opened = open_engine(engine_folder(engine, rebuild=rebuild), open_options)
    updates = []
    with closing(opened.engine):
        prepared = prepare(opened, wanted)
        ids, limits = prepared.ids, opened.manifest.limits
        given = {name: value for name, value in sampling.items() if value is not None}
        params = SamplingParams(
            max_tokens=max_tokens or max(min(128, limits.max_seq_len - len(ids)), 1),
            **{**prepared.defaults, **given},
        )
        for update in generation.generate(opened.scheduler(), ids, params, prepared.trace, chosen):
            updates.append(update)
            if stream:
                click.echo(update.text, nl=False)
        if updates[-1].finish_reason is FinishReason.ERROR:
            raise NemotrtError(f"the request failed: {updates[-1].error}")
        result = generation.collect(updates, len(ids))
    if stream:
        click.echo()
    elif as_json:
        click.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))
    elif opened.tokenizer is None:
        click.echo(",".join(str(token["id"]) for token in result["tokens"]))
    else:
        click.echo(result["text"])
