"""The JSON of `vllm bench serve --save-result --save-detailed`."""

from pathlib import Path
from typing import Any

from nemotrt.errors import ArtefactError
from nemotrt.profiles.runs.imports.composition import compose, imported_request
from nemotrt.profiles.runs.record.result import ProfileResult, RequestRecord

# Source: vLLM, vllm/benchmarks/serve.py; lists run in parallel, times are in seconds.
DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "start_times")


def read_vllm_bench(raw: dict[str, Any], path: Path) -> ProfileResult:
    """Return the result of one benchmark.

    Raises:
        ArtefactError: it was saved without the requests' details, or they are not consistent.
    """
    missing = [name for name in DETAILS if name not in raw]
    if missing:
        raise ArtefactError(
            f"{path} has no {', '.join(missing)}: run `vllm bench serve` with --save-detailed."
        )
    lists = [raw[name] for name in DETAILS]
    if not all(isinstance(values, list) for values in lists):
        raise ArtefactError(f"{path}: {', '.join(DETAILS)} must be lists.")
    if len({len(values) for values in lists}) != 1 or not lists[0]:
        raise ArtefactError(f"{path}: {', '.join(DETAILS)} differ in length, or are empty.")
    errors = raw.get("errors") or [""] * len(lists[0])
    try:
        requests = _requests(lists, errors)
    except (TypeError, ValueError) as error:
        raise ArtefactError(f"{path}: a request is malformed: {error}.") from error
    concurrency = raw.get("max_concurrency") or len(requests)
    model = str(raw.get("model_id", "unknown"))
    return compose(requests, "vllm bench serve", model, str(path), int(concurrency))


def _requests(lists: list[list[Any]], errors: list[str]) -> tuple[RequestRecord, ...]:
    """Return the requests of the parallel lists."""
    return tuple(
        imported_request(
            index,
            "measured",
            isl,
            osl,
            start_s,
            start_s,
            [ttft_s, *gaps_s] if not error else [],
            error,
        )
        for index, (isl, osl, ttft_s, gaps_s, start_s, error) in enumerate(
            zip(*lists, errors, strict=True)
        )
    )
