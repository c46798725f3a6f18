"""How right the load driver's clock is, and what it costs, against the scripted server.

Run: python benchmarks/profile_accuracy.py [--streams 1,32,256]

The server and the driver share CLOCK_MONOTONIC, so every arrival is compared with the time at
which the server wrote that very response. It needs two idle cores; on a busy machine it measures
the machine.
"""

import argparse
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np

from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.profiles.load.http.http_client import HttpClient
from nemotrt.profiles.load.prompts import PromptMaker
from nemotrt.profiles.load.targets.triton_http import TritonHttpTarget
from nemotrt.profiles.load.workload import Language, Workload
from nemotrt.profiles.runs import measure

SERVER = Path(__file__).parents[1] / "tests" / "profiles" / "scripted_server.py"
ITL_MS = {1: 5.0, 32: 8.0, 256: 12.5}
HEADER = (
    f"{'streams':>8}{'tokens/s':>10}{'us/token':>10}{'core':>7}"
    f"{'late p50':>10}{'p90':>8}{'p99':>8}{'ttft off':>10}{'tpot off':>10}"
)


def main() -> None:
    """Print a line for each number of streams; times in ms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", default="1,32,256")
    streams = [int(item) for item in parser.parse_args().streams.split(",")]
    print(f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.2f}")
    print(HEADER)
    for count in streams:
        print(line(count))


def line(streams: int) -> str:
    """Return one line of the table."""
    process = subprocess.Popen([sys.executable, str(SERVER)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = f"http://127.0.0.1:{int(process.stdout.readline())}"
    try:
        return _measured(url, streams)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _measured(url: str, streams: int) -> str:
    """Run the load and compare every arrival with the server's log."""
    tokenizer = load_tokenizer(TINY_MODELS["tiny-dense"])
    assert tokenizer is not None
    maker = PromptMaker(tokenizer, Language.MIXED, 0)
    script = {"ttft_ms": 20, "itl_ms": ITL_MS.get(streams, 10.0)}
    target = TritonHttpTarget(HttpClient(url), maker, extra={"script": script})
    workload = Workload(16, 50, 4 * streams, concurrency=streams, num_warmup=streams)
    result = measure.run(target, workload)
    assert result.status == "complete", result.reason
    assert result.clock_start_s is not None
    with urllib.request.urlopen(f"{url}/log", timeout=10) as response:
        logs = {entry["tag"]: entry for entry in json.load(response)["requests"]}
    late_ms, ttft_ms, tpot_ms = [], [], []
    for request in result.requests:
        if request.phase != "measured":
            continue
        entry = logs[maker.text(request.index, 16).text[:12]]
        sends_s = np.array(entry["sends_s"]) - result.clock_start_s
        late_ms.extend(1e3 * (np.array(request.arrivals_s) - sends_s))
        ttft_ms.append(1e3 * (sends_s[0] - request.due_s))
        tpot_ms.append(1e3 * (sends_s[-1] - sends_s[0]) / (len(sends_s) - 1))
    late = np.percentile(late_ms, (50, 90, 99))
    return (
        f"{streams:>8}{result.metric('tokens_per_s'):>10.0f}"
        f"{result.metric('driver_cpu_us_per_token'):>10.1f}{result.driver.cpu_share:>7.0%}"
        f"{late[0]:>10.2f}{late[1]:>8.2f}{late[2]:>8.2f}"
        f"{result.metric('ttft_ms', 'mean') - np.mean(ttft_ms):>10.2f}"
        f"{result.metric('tpot_ms', 'mean') - np.mean(tpot_ms):>10.3f}"
    )


if __name__ == "__main__":
    main()
