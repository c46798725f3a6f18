"""An engine process over the idle engine of host_loop.py."""

import sys

from host_loop import open_idle

from nemotrt.serve.engine import host as engine_host

if __name__ == "__main__":
    engine_host.open_engine = open_idle
    sys.exit(engine_host.main())
