"""What passed, written beside the engine."""

from pathlib import Path

from nemotrt.build.check.result.engine_check import EngineCheck
from nemotrt.build.check.result.report import CheckReport
from nemotrt.engines.artefact.executed import ExecutedOn, write_executed
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.errors import NemotrtError


def record(folder: Path, found: EngineCheck, report: CheckReport) -> str:
    """Write executed.json for an engine that passed; return why not, or ""."""
    comparison, facts = found.comparison, report.gpu.facts
    if found.faults or comparison is None:
        return ""
    is_gpu = found.gpu is not None
    try:
        manifest = read_manifest(folder)
        executed = ExecutedOn(
            engine=str(manifest.facts["engine"]),
            at=report.at,
            device=report.gpu_name if is_gpu else "CPU",
            driver=facts.driver if is_gpu and facts else None,
            versions={name: value for name, value in report.packages.items() if value},
            reference=str(found.reference),
            largest_error=comparison.error,
            bound=comparison.bound,
            prefill_tokens_per_s=found.prefill_tokens_per_s,
            decode_tokens_per_s=found.decode_tokens_per_s,
            decode_sequences=found.decode_sequences,
        )
        write_executed(folder, executed)
    except (OSError, NemotrtError) as error:
        return f"not written beside the engine: {error}"
    return ""
