"""Exports a checkpoint to Edge-LLM's graph, checks it, and says how the GPU host goes on."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from nemotrt.engines.backends.edge_llm.exporter import LOG_FILE, export, find_exporter
from nemotrt.engines.backends.edge_llm.graph_check import check_graph
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.runtime.engine import Limits
from nemotrt.files.text_file import read_json_object

EXPORT_FOLDER = "edge_llm"
VERSION = re.compile(r"[0-9A-Za-z.+_-]+")
SCRIPT_FILE = "build_on_host.sh"
# Source: TensorRT Edge-LLM 0.11, docs "Quick Start" and examples/llm/llm_build.cpp.
SCRIPT = """#!/bin/sh
# Builds the TensorRT engine on the GPU host. Written by nemotrt; no GPU ran it.
# EDGE_LLM is a checkout of TensorRT Edge-LLM {version}, built for this GPU (CMake).
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
: "${{EDGE_LLM:?set it to the folder of TensorRT Edge-LLM}}"
export EDGELLM_PLUGIN_PATH="${{EDGELLM_PLUGIN_PATH:-$EDGE_LLM/build/libNvInfer_edgellm_plugin.so}}"
exec "$EDGE_LLM/build/examples/llm/llm_build" \\
  --onnxDir "$here/{folder}/llm" \\
  --engineDir "${{1:-$here/engine}}" \\
  --maxBatchSize {limits.max_batch_size} \\
  --maxInputLen {limits.chunk_tokens} \\
  --maxKVCacheCapacity {limits.max_seq_len}
"""


def write_export(
    checkpoint: Checkpoint,
    folder: Path,
    limits: Limits,
    report: Callable[[str], None] = lambda stage: None,
) -> tuple[str, int]:
    """Write the graph and SCRIPT_FILE; return the exporter's version and the quantized linears.

    Raises:
        EnvironmentUnfitError: the exporter is not installed.
        ChildProcessFailedError: it failed.
        ArtefactError: what it wrote is not the checkpoint.
    """
    exporter = find_exporter()
    report("edge-llm: export")
    graph_folder = export(exporter, checkpoint.path, folder / EXPORT_FOLDER, report)
    (folder / EXPORT_FOLDER / LOG_FILE).unlink()
    report("edge-llm: check")
    found = check_graph(graph_folder, checkpoint)
    config = read_json_object(graph_folder / "config.json")
    version = str(config.get("edgellm_version"))
    if not VERSION.fullmatch(version):  # it goes into a script
        version = "unknown"
    text = SCRIPT.format(version=version, folder=EXPORT_FOLDER, limits=limits)
    script = folder / SCRIPT_FILE
    script.write_text(text, encoding="utf-8")
    script.chmod(0o755)
    return version, found


def host_command(folder: Path) -> str:
    """Return what to run on the GPU host."""
    return f"EDGE_LLM=<its checkout> {shlex.quote(str(folder / SCRIPT_FILE))}"
