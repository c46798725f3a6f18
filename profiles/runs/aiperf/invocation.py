"""What AIPerf is told: our prompts and schedule as a dataset, and its command line."""

import json
from pathlib import Path

from nemotrt.errors import ConfigError
from nemotrt.profiles.load.prompts import Prompt
from nemotrt.profiles.load.schedule import num_measured, warm_up_and_measured
from nemotrt.profiles.load.target import Target
from nemotrt.profiles.load.targets.openai_http import Endpoint, OpenAiTarget
from nemotrt.profiles.load.workload import Arrival, Workload

# Source: AIPerf 0.13.0, `aiperf profile --help`.
PATTERNS = {Arrival.POISSON: "poisson", Arrival.FIXED: "constant"}
ENDPOINT_TYPES = {Endpoint.COMPLETIONS: "completions", Endpoint.CHAT: "chat"}


def openai_target(target: Target) -> OpenAiTarget:
    """Return `target` if AIPerf can measure it.

    Raises:
        ConfigError: it is no OpenAI-compatible endpoint. AIPerf 0.13 has a type for any HTTP API
            (`template`), but takes the text alone from its answers, so it would count their tokens
            by tokenizing it again, which is not what the server made.
    """
    if isinstance(target, OpenAiTarget):
        return target
    raise ConfigError(
        f"AIPerf measures OpenAI-compatible endpoints here, not {target.facts['kind']}: it knows "
        "none of Triton's own protocols, and could not count what an answer's tokens were. Give "
        "the server's OpenAI address, with /v1 at the end, or leave out --driver."
    )


def write_dataset(
    path: Path, target: OpenAiTarget, workload: Workload, prompts: list[Prompt]
) -> None:
    """Write one line a request, in order: text, answer length and, of a trace, its time."""
    with path.open("w", encoding="utf-8") as file:
        for due_s, exchange in warm_up_and_measured(workload):
            line: dict[str, object] = {
                "text": prompts[exchange.index].text,
                "output_length": exchange.osl,
                "extra": target.fields(exchange.osl),
            }
            if workload.arrival is Arrival.TRACE:
                line["timestamp"] = round(1e3 * due_s, 3)
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def write_tokenizer(folder: Path, target: OpenAiTarget) -> None:
    """Write the prompts' tokenizer in the form that AIPerf loads; it would fetch one otherwise."""
    folder.mkdir()
    (folder / "tokenizer.json").write_text(target.maker.tokenizer.to_json(), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def arguments(
    target: OpenAiTarget, workload: Workload, dataset: Path, tokenizer: Path, output: Path
) -> list[str]:
    """Return the arguments of `aiperf`."""
    found = ["profile", f"--model={target.model}", f"--url={target.client.url}", "--streaming"]
    found += ["--endpoint-type", ENDPOINT_TYPES[target.endpoint], "--use-legacy-max-tokens"]
    found += ["--use-server-token-count", "--tokenizer", str(tokenizer)]
    found += ["--input-file", str(dataset), "--custom-dataset-type", "single_turn"]
    found += ["--dataset-sampling-strategy", "sequential", "--output-artifact-dir", str(output)]
    found += ["--request-timeout-seconds", str(max(target.client.stall_timeout_s, 1.0) * 10)]
    found += ["--export-level", "records", "--ui", "none"]
    found += ["--no-gpu-telemetry", "--no-server-metrics"]  # ours run beside it
    for name, value in target.client.headers.items():
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
