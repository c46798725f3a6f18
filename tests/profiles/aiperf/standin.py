"""Stands in for AIPerf 0.13.0: takes its arguments, sends nothing, writes its records.

Answers as scripted by AIPERF_STANDIN, JSON: {"gap_ms", "fault": "short" | "isl" | "die" | "hang"}.
Each request takes one gap to its first token and one to every further token; each user sends its
next request 1 ms after its last answer.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path


def record(line, number, phase, start_s, gap_ms, fault):
    osl = line["output_length"] - (fault == "short" and phase == "profiling")
    metrics = {
        "time_to_first_token": gap_ms,
        "inter_chunk_latency": [gap_ms] * (osl - 1),
        "input_sequence_length": 16,
        "output_sequence_length": osl,
        "usage_prompt_tokens": 17 if fault == "isl" else 16,
    }
    start_ns = round(1e9 * start_s)
    return {
        "metadata": {
            "session_num": number,
            "credit_issued_ns": start_ns - 2_000_000,
            "request_start_ns": start_ns,
            "benchmark_phase": phase,
            "was_cancelled": False,
        },
        "metrics": {name: {"value": value, "unit": "-"} for name, value in metrics.items()},
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("verb")
    for name in ("input-file", "output-artifact-dir", "concurrency", "request-rate"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--warmup-request-count", type=int, default=0)
    args, _ = parser.parse_known_args()
    script = json.loads(os.environ.get("AIPERF_STANDIN", "{}"))
    fault, gap_ms = script.get("fault", ""), script.get("gap_ms", 10)
    lines = [json.loads(line) for line in Path(args.input_file).read_text().splitlines()]
    if fault == "die":
        print("05:13 ERROR no server\n\nLog File: aiperf.log", file=sys.stderr)
        sys.exit(1)
    folder = Path(args.output_artifact_dir)
    folder.mkdir(parents=True)
    free_s = [time.time()] * int(args.concurrency or len(lines))
    records = []
    for index, line in enumerate(lines):
        is_warmup = index < args.warmup_request_count
        if index == args.warmup_request_count:  # the warm-up ends before the profiling starts
            free_s = [max(free_s)] * len(free_s)
        user = free_s.index(min(free_s))
        number = index if is_warmup else index - args.warmup_request_count
        phase = "warmup" if is_warmup else "profiling"
        records.append(record(line, number, phase, free_s[user], gap_ms, fault))
        free_s[user] += 1e-3 * (1 + gap_ms * line["output_length"])
    if fault == "hang":  # an interrupt leaves what was recorded
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # it may come at once
        Path(script["flag"]).touch()
        signal.sigwait({signal.SIGINT})
        records = records[:5]
    text = "".join(json.dumps(item) + "\n" for item in reversed(records))
    (folder / "profile_export.jsonl").write_text(text)
    print(json.dumps(sys.argv[1:]))


if __name__ == "__main__":
    main()
