"""A server of ours for as long as stdin is open; its address goes to stdout.

usage: python hold.py ENGINE [OPTION OF nemotrt serve run ...]
"""

import sys
from pathlib import Path

from nemotrt.serve.processes.launcher import serve_engine

if __name__ == "__main__":
    with serve_engine(Path(sys.argv[1]), *sys.argv[2:], drain_s=2) as server:
        print(server.openai_url, flush=True)
        sys.stdin.read()
