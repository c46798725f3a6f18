"""Runs the tests in two halves of about equal length side by side.

usage: python scripts/halves.py [PYTEST OPTIONS]

A test keeps about one core busy, so two cores halve the time. The first half is shown once the
rest has ended; the exit code is the worse of both.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = ("serve", "quantize", "build", "profiles")
FIRST = [f"tests/{name}" for name in NAMES]
REST = ["tests", *(f"--ignore={folder}" for folder in FIRST)]


def main() -> int:
    """Return the exit code."""
    command = [Path(sys.executable).parent / "pytest", "-q", *sys.argv[1:]]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        first = subprocess.Popen([*command, *FIRST], stdout=output, stderr=subprocess.STDOUT)
        try:
            rest = subprocess.run([*command, *REST], check=False).returncode
        except KeyboardInterrupt:
            first.wait()
            return 130
        code = max(rest, first.wait())
        output.seek(0)
        print(f"\n{' '.join(FIRST)}:", flush=True)
        sys.stdout.writelines(output)
    return code


if __name__ == "__main__":
    sys.exit(main())
