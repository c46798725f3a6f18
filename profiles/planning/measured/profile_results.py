"""Reads a user's own measurements: results of `nemotrt profile`, or a CSV in our columns."""

from pathlib import Path

from nemotrt.engines.backends import registry
from nemotrt.errors import ArtefactError
from nemotrt.profiles.hardware.gpu_profile import GpuProfile
from nemotrt.profiles.load.workload import Arrival
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy, precision_of
from nemotrt.profiles.planning.measured.rows import MeasuredRow, read_rows
from nemotrt.profiles.runs.record.result import ProfileResult, Status, read_result


def read_results(path: Path, options: DeploymentOptions, gpu: GpuProfile) -> list[MeasuredRow]:
    """Return the measured rows of a file or a run's folder.

    A result says lengths, users and throughput; `options` says of which model in which formats.

    Raises:
        ArtefactError: no result of a complete run, or not of such a deployment.
        ConfigError: a CSV without our columns, or the throughput could not be computed.
    """
    if path.suffix == ".csv":
        return read_rows(path)
    result = read_result(path)
    fault = _why_unusable(result, options, gpu)
    if fault:
        raise ArtefactError(f"{path} cannot calibrate {gpu.name}: {fault}.")
    workload, deployment = result.workload, deploy(options, gpu)
    return [
        MeasuredRow(
            number=0,
            model=options.model,
            gpu=options.gpu,
            precision=deployment.formats.precision,
            kv=deployment.formats.kv,
            ssm=deployment.formats.ssm,
            engine=deployment.engine.name,
            isl=workload.isl,
            is_isl_assumed=False,
            osl=workload.osl,
            concurrency=workload.concurrency,
            metric="output_tok_s",
            tokens_per_s=result.metric("tokens_per_s"),
            itl_ms=None,
            ttft_ms=None,
            kind="fixed_concurrency",
            source=str(path),
            notes="",
            role="calibration",
            tp=options.tp,
            max_num_tokens=deployment.max_num_tokens,
        )
    ]


def _why_unusable(result: ProfileResult, options: DeploymentOptions, gpu: GpuProfile) -> str:
    """Return why a run does not measure the deployment, or an empty string."""
    target = result.target
    if not options.model:
        return "a result does not say the model's shape; give MODEL"
    if result.status is not Status.COMPLETE:
        return f"its run is {result.status.value}"
    if result.workload.arrival != Arrival.CLOSED:
        return f"its arrivals are {result.workload.arrival}; a closed loop has a stated load"
    precision = precision_of(options)
    if target.get("precision", precision) != precision:
        return f"it ran {target['precision']}, not {precision}"
    if target.get("backend") in registry.cpu_names() and gpu.kind != "cpu":
        return f"it ran on a CPU ({target['backend']})"
    return ""
