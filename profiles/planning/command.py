"""`nemotrt plan`: how much fits, how fast it runs and why, before a GPU is rented."""

import sys
from dataclasses import replace
from pathlib import Path

import click

from nemotrt.commandline.default_group import DefaultGroup
from nemotrt.commandline.kinds import FILE
from nemotrt.commandline.options import options_of
from nemotrt.commandline.shared import (
    config_option,
    dry_run_option,
    force_option,
    given_options,
    json_option,
    output_option,
    quiet_option,
)
from nemotrt.engines.checkpoint.hub.parameter import MODEL, offline_option
from nemotrt.errors import ConfigError, NoFeasiblePlanError
from nemotrt.profiles.planning.answers.arrivals import open_loop
from nemotrt.profiles.planning.answers.built import built_engines
from nemotrt.profiles.planning.answers.comparison import compare
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.limits import check_limits
from nemotrt.profiles.planning.answers.options import THIS_MACHINE, DeploymentOptions, deploy
from nemotrt.profiles.planning.answers.plan import Plan, make_plan
from nemotrt.profiles.planning.answers.search import (
    LatencyTarget,
    PrecisionChoice,
    best_under,
)
from nemotrt.profiles.planning.launch.table import load_table, planned_engine
from nemotrt.profiles.planning.measured.calibrate_command import calibrate_and_tell
from nemotrt.profiles.planning.measured.validate_command import validate_command
from nemotrt.profiles.planning.output.telling import Asked, check_outputs, print_plan, write_plan
from nemotrt.profiles.planning.sessions.answer import plan_sessions
from nemotrt.profiles.planning.sessions.load import SessionChoice
from nemotrt.profiles.planning.sweeps.command import sweep_command
from nemotrt.profiles.planning.sweeps.compare_command import compare_command


@click.group(
    cls=DefaultGroup,
    default="model",
    no_args_is_help=False,
    options_metavar="",
    subcommand_metavar="MODEL [OPTIONS] | COMMAND [OPTIONS]",
)
def plan() -> None:
    """Predict memory, throughput and latency of MODEL on a GPU, and say what limits them.

    MODEL is a known name, a config.json, a checkpoint folder or OWNER/NAME[@REVISION] on the hub,
    of which only the configuration is downloaded. Every figure is a prediction: low, best and high
    come from the spread of measured corrections.
    """


@plan.command("model", hidden=True)
@click.argument("model", default="", type=MODEL)
@options_of(PrecisionChoice)
@options_of(DeploymentOptions)
@options_of(LatencyTarget)
@options_of(SessionChoice)
@options_of(Asked)
@click.option(
    "--calibrate",
    "results",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Fit the GPU's corrections to these runs.",
)
@output_option("Write the fitted or measured GPU profile here.", FILE)
@json_option
@quiet_option
@dry_run_option
@force_option
@offline_option
@config_option
def plan_model(
    deployment_options: DeploymentOptions,
    precision_choice: PrecisionChoice,
    latency_target: LatencyTarget,
    session_choice: SessionChoice,
    asked: Asked,
    results: tuple[Path, ...],
) -> None:
    """Plan one model on one GPU."""
    options = deployment_options.at(precision=precision_choice.precision)
    given = given_options(click.get_current_context())
    load = session_choice.load(options, given)
    if load:
        options = options.at(isl=load.prompt_tokens(load.num_turns), osl=load.osl)
    table = load_table(asked.launch) if asked.launch else None
    if table:
        options = options.at(engine=planned_engine(table, options.engine))
    if asked.output and not results and options.gpu != THIS_MACHINE:
        raise click.UsageError("--output is what --calibrate or --gpu this-machine writes.")
    if not (options.model or results):
        raise ConfigError(
            "Missing argument 'MODEL': a known name, a config.json or a checkpoint folder, such as "
            f"`nemotrt plan nemotron-nano-9b-v2 --gpu {options.gpu}`; --help has the rest."
        )
    if options.gpu == THIS_MACHINE and sys.stderr.isatty() and not asked.quiet:
        click.echo("measuring this machine, about ten seconds", err=True)
    if results:
        calibrate_and_tell(
            options,
            results,
            asked.output,
            as_json=asked.as_json,
            dry_run=asked.dry_run,
            force=asked.force,
        )
        return
    check_outputs(asked)
    if options.accepted_per_step is not None:
        for is_given, name in ((load, "--sessions"), (table, "--launch")):
            if is_given:
                raise ConfigError(f"--accepted-per-step: {name} plans no speculation yet.")
    if options.adapters is not None:
        for told, name in ((table, "--launch"), (asked.baseline, "--baseline")):
            if told:
                raise ConfigError(f"--adapters: {name} knows none yet; leave one of the two out.")
    if load and precision_choice.is_any:
        raise ConfigError("--sessions plans one precision, not any.")
    # Of sessions the target is for the agents, not for a batch.
    if load and asked.rate:
        raise ConfigError("--rate is of single requests, and --sessions of agents that wait.")
    # That of a rate bounds the rate.
    target = LatencyTarget() if load or asked.rate else latency_target
    deployment, batch_size = _best(options, precision_choice, target, asked.batch_size)
    users = None if load else asked.concurrency
    record = make_plan(deployment, users, batch_size, asked.usd_per_hour)
    if not (load or asked.rate):
        _check_target(record, latency_target)
    if asked.write_limits:
        check_limits(deployment, record.batch_size)
    baseline = None
    if asked.baseline:
        is_own = options.precision is None and not precision_choice.is_any
        same = options.at(
            model=asked.baseline,
            precision=None if is_own else deployment.formats.precision,
        )
        baseline = deploy(same, deployment.gpu)
        record = compare(deployment, record, baseline, asked.usd_per_hour)
        record = replace(record, engines=built_engines(deployment, baseline))
    sessions = None
    if load:
        slots, gib = record.batch_size, session_choice.prefix_cache_gib
        load = replace(load, concurrency=asked.concurrency or slots)
        sessions = plan_sessions(deployment, load, slots, gib, latency_target)
    arrivals = None
    if asked.rate:
        if asked.concurrency:
            raise ConfigError("--rate is of requests that nobody waits to send, not --concurrency.")
        arrivals = open_loop(deployment, asked.rate, record.batch_size, latency_target)
    command = None
    if table:
        from nemotrt.profiles.planning.launch.launch import launch

        command = launch(table, deployment, record, sessions)
    print_plan(deployment, record, sessions, arrivals, command, asked)
    write_plan(deployment, record, baseline, sessions, asked)


def _check_target(record: Plan, target: LatencyTarget) -> None:
    """Raise NoFeasiblePlanError unless the plan's users get what the target says."""
    if target.is_met(record.ttft_ms, record.tpot_ms):
        return
    wait = f", {record.queue_ms:.0f} of them the wait for a slot" if record.queue_ms else ""
    raise NoFeasiblePlanError(
        f"The latency target cannot be met: {record.concurrency} users get {record.ttft_ms:.0f} ms "
        f"to the first token{wait}, and {record.tpot_ms:.1f} ms for each other one. "
        "Choose fewer users, a larger GPU, or --tp-size."
    )


def _best(
    options: DeploymentOptions,
    choice: PrecisionChoice,
    target: LatencyTarget,
    batch_size: int | None,
) -> tuple[Deployment, int | None]:
    """Return what is deployed, and its batch, None for as many as fit."""
    if target == LatencyTarget() and not choice.is_any:
        return deploy(options), batch_size
    if batch_size is not None:
        raise ConfigError("--batch-size cannot be combined with a latency target or any precision.")
    return best_under(choice.deployments(options), target)


plan.add_command(compare_command)
plan.add_command(sweep_command)
plan.add_command(validate_command)
