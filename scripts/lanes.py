"""Runs the tests in three lanes of about equal length side by side.

usage: python scripts/lanes.py [PYTEST OPTIONS]

A test keeps less than one core busy: many wait for a server. So two cores carry three lanes. Each
lane is shown once it has ended, the last one as it runs; the exit code is 0 if all passed.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

LANES = (("serve", "quantize", "build"), ("engines",))


def main() -> int:
    """Return the exit code."""
    command = [Path(sys.executable).parent / "pytest", "-q", *sys.argv[1:]]
    folders = [[f"tests/{name}" for name in names] for names in LANES]
    rest = ["tests", *(f"--ignore={folder}" for lane in folders for folder in lane)]
    with tempfile.TemporaryDirectory() as outputs:
        paths = [Path(outputs) / str(number) for number in range(len(LANES))]
        lanes = []
        for path, lane in zip(paths, folders, strict=True):
            with path.open("w", encoding="utf-8") as output:
                run = subprocess.Popen([*command, *lane], stdout=output, stderr=subprocess.STDOUT)
                lanes.append(run)
        try:
            codes = [subprocess.run([*command, *rest], check=False).returncode]
            for path, lane, run in zip(paths, folders, lanes, strict=True):
                codes.append(run.wait())
                print(f"\n{' '.join(lane)}:", flush=True)
                print(path.read_text("utf-8"), end="", flush=True)
        except KeyboardInterrupt:
            for run in lanes:
                run.wait()
            return 130
    return next((abs(code) for code in codes if code), 0)  # a killed lane's is negative


if __name__ == "__main__":
    sys.exit(main())
