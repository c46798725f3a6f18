"""What AIPerf is told: our prompts and schedule as a dataset, and its command line."""

import json
from pathlib import Path

from nemotrt.errors import ConfigError
from nemotrt.profiles.load.prompts import Prompt
from nemotrt.profiles.load.schedule import num_measured, warm_up_and_measured
from nemotrt.profiles.load.target import OpenAiApi, Target
from nemotrt.profiles.load.workload import Arrival, Workload

# Source: AIPerf 0.13.0, `aiperf profile --help`.
PATTERNS = {Arrival.POISSON: "poisson", Arrival.FIXED: "constant"}


def openai_api(target: Target) -> OpenAiApi:
    """Return the endpoint of a target that AIPerf can measure.

    Raises:
        ConfigError: it is no OpenAI-compatible endpoint. AIPerf 0.13 has a type for any HTTP API
            (`template`), but takes the text alone from its answers, so it would count their tokens
            by tokenizing it again, which is not what the server made.
    """
    if target.openai is not None:
        return target.openai
    raise ConfigError(
        f"AIPerf measures OpenAI-compatible endpoints here, not {target.facts['kind']}: it knows "
        "none of Triton's own protocols, and could not count what an answer's tokens were. Give "
        "the server's OpenAI address, with /v1 at the end, or leave out --driver."
    )


def write_dataset(path: Path, api: OpenAiApi, workload: Workload, prompts: list[Prompt]) -> None:
    """Write one line per request, in order: text, answer length and, of a trace, its time."""
    with path.open("w", encoding="utf-8") as file:
        for due_s, exchange in warm_up_and_measured(workload):
            line: dict[str, object] = {
                "text": prompts[exchange.index].text,
                "output_length": exchange.osl,
                "extra": api.fields(exchange.osl),
            }
            if workload.arrival is Arrival.TRACE:
                line["timestamp"] = round(1e3 * due_s, 3)
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def write_tokenizer(folder: Path, api: OpenAiApi) -> None:
    """Write the prompts' tokenizer in the form that AIPerf loads; it would fetch one otherwise."""
    folder.mkdir()
    (folder / "tokenizer.json").write_text(api.tokenizer.to_json(), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def arguments(
    api: OpenAiApi, workload: Workload, dataset: Path, tokenizer: Path, output: Path
) -> list[str]:
    """Return the arguments of `aiperf`."""
    found = ["profile", f"--model={api.model}", f"--url={api.url}", "--streaming"]
    endpoint = "chat" if api.is_chat else "completions"
    found += ["--endpoint-type", endpoint, "--use-legacy-max-tokens"]
    found += ["--use-server-token-count", "--tokenizer", str(tokenizer)]
    found += ["--input-file", str(dataset), "--custom-dataset-type", "single_turn"]
    found += ["--dataset-sampling-strategy", "sequential", "--output-artifact-dir", str(output)]
    found += ["--request-timeout-seconds", str(max(api.stall_timeout_s, 1.0) * 10)]
    found += ["--export-level", "records", "--ui", "none"]
    found += ["--no-gpu-telemetry", "--no-server-metrics"]  # ours run beside it
    for name, value in api.headers.items():
        found += [f"--header={name}:{value}"]
    return found + _pace(workload)


def _pace(workload: Workload) -> list[str]:
    """Return the arguments that say when requests are sent."""
    if workload.arrival is Arrival.TRACE:
        if workload.num_warmup:
            raise ConfigError("AIPerf replays a trace whole: leave out --warmup.")
        return ["--fixed-schedule"]
    pace = ["--request-count", str(num_measured(workload))]
    if workload.num_warmup:
        pace += ["--warmup-request-count", str(workload.num_warmup)]
    if workload.arrival is Arrival.CLOSED:
        return [*pace, "--concurrency", str(workload.concurrency)]
    pace += ["--request-rate", repr(workload.requests_per_s)]
    return [*pace, "--arrival-pattern", PATTERNS[workload.arrival]]
