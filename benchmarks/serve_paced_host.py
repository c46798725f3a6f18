"""An engine process over a device whose steps take a fixed time, $PACED_STEP_MS, and no CPU."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from nemotrt.engines import opening
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.serve.engine import host as engine_host
from support.ahead_device import AheadDevice

ONE_THREAD = OpenOptions(1)
TEXT = " whatever it is asked, the same words come again and again"


def open_paced(folder: Path, options: OpenOptions = ONE_THREAD) -> opening.OpenEngine:
    """Return the engine directory's tokenizer over a paced device."""
    opened = opening.open_engine(folder, options, verify=False)
    step_s = float(os.environ.get("PACED_STEP_MS", "5")) / 1000
    limits, vocab_size = opened.manifest.engine_limits, opened.engine.vocab_size
    opened.engine.close()
    assert opened.tokenizer is not None
    tokens = opened.tokenizer.encode(TEXT)
    return replace(opened, engine=AheadDevice(limits, vocab_size, step_s, tokens))


if __name__ == "__main__":
    engine_host.open_engine = open_paced
    sys.exit(engine_host.main())
