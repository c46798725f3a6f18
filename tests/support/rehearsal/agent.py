"""Runs commands where it runs itself: reads requests from stdin, one a line, and answers so.

A request is {"id", "script", "environment", "timeout_s", "log"}: with a log the script goes on by
itself, and the answer comes when it ends. {"id", "stop"} ends the request of that number.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

RUNNING: dict[int, subprocess.Popen[str]] = {}
LOCK = threading.Lock()


def answer(number: int, code: int, output: str, errors: str) -> None:
    with LOCK:
        told = {"id": number, "code": code, "output": output, "errors": errors}
        print(json.dumps(told), flush=True)


def run(request: dict[str, Any]) -> None:
    number = request["id"]
    log = open(request["log"], "w") if request.get("log") else None  # noqa: SIM115
    process = subprocess.Popen(
        ["bash", "-c", request["script"]],
        env=request["environment"],
        stdin=subprocess.DEVNULL,
        stdout=log or subprocess.PIPE,
        stderr=log or subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    RUNNING[number] = process
    try:
        output, errors = process.communicate(timeout=request["timeout_s"])
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        errors = f"{errors or ''}\nno end after {request['timeout_s']} s"
    answer(number, process.returncode, output or "", errors or "")


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "stop" in request:
            process = RUNNING.get(request["stop"])
            if process is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            answer(request["id"], 0, "", "")
        else:
            threading.Thread(target=run, args=[request], daemon=True).start()


if __name__ == "__main__":
    main()
