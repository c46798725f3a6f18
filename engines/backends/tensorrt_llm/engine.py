"""A bundle opened on the GPU host: `tensorrt_llm.LLM` behind our engine's methods."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from nemotrt.engines.artefact.manifest import Manifest
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.artefact.weights import open_weights
from nemotrt.engines.backends.tensorrt_llm.bundle import (
    ARGS_FILE,
    REUSE_FILE,
    serve_command,
)
from nemotrt.engines.backends.tensorrt_llm.llm_args import checked_args
from nemotrt.engines.backends.tensorrt_llm.lora import with_adapters
from nemotrt.engines.backends.tensorrt_llm.process.interpreter import find_python
from nemotrt.engines.backends.tensorrt_llm.process.llm_process import LLMProcess
from nemotrt.engines.backends.tensorrt_llm.scheduler import LLMScheduler
from nemotrt.engines.checkpoint.lora.adapter import Adapter, open_adapter
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.errors import ConfigError, EnvironmentUnfitError


class LLMEngine:
    """TensorRT-LLM's `LLM`: it owns the state and batches on its own, so requests go in whole."""

    def __init__(
        self,
        process: LLMProcess,
        limits: Limits,
        vocab_size: int,
        *,
        reuses_prefixes: bool,
        adapters: Mapping[str, Adapter],
    ) -> None:
        """Take over a started LLM, which has room for the adapters."""
        self._adapters = adapters
        self.limits = limits
        self.vocab_size = vocab_size
        self.reuses_prefixes = reuses_prefixes
        self.process = process

    def scheduler(self, tokenizer: Tokenizer | None, eos_ids: tuple[int, ...]) -> LLMScheduler:
        """Return what drives the LLM; one at a time, as with any engine."""
        told = {
            name: (name, number, str(adapter.path.absolute()))
            for number, (name, adapter) in enumerate(self._adapters.items(), 1)
        }
        return LLMScheduler(
            self,
            self.process,
            tokenizer,
            eos_ids,
            reuses_prefixes=self.reuses_prefixes,
            adapters=told,
        )

    @property
    def adapters(self) -> Sequence[str]:
        """The names of the adapters that requests may have."""
        return tuple(self._adapters)

    @property
    def adapter_bytes(self) -> int:
        """Memory of all adapters, in the model's 16 bits."""
        return sum(adapter.num_bytes for adapter in self._adapters.values()) // 2

    def close(self) -> None:
        """End the LLM and its processes."""
        self.process.close()

    def allocate(self) -> int:
        """Refuse: there are no slots to be had."""
        self._refuse()

    def release(self, slot: int) -> None:
        """Refuse: there are no slots to be had."""
        self._refuse()

    def held_tokens(self, slot: int) -> int:
        """Refuse: there are no slots to be had."""
        self._refuse()

    def adapt(self, slot: int, name: str) -> None:
        """Refuse: there are no slots; a request has its adapter."""
        self._refuse()

    def step(self, feeds: Sequence[Feed]) -> npt.NDArray[np.float32]:
        """Refuse: the LLM gives tokens, not logits."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(
            "backend tensorrt-llm takes whole requests, not single steps; use generate, serve or "
            "profile with it, and a CPU engine of the same checkpoint for logits."
        )


def open_engine(folder: Path, manifest: Manifest, options: OpenOptions) -> LLMEngine:
    """Return the bundle in `folder`, running.

    Raises:
        ArtefactError: the arguments are not TensorRT-LLM's, or the checkpoint has changed.
        EnvironmentUnfitError: no Python has TensorRT-LLM, or it can't start here.
        ChildProcessFailedError: its process ended.
    """
    config = read_model_config(folder)
    origin = manifest.checkpoint.origin
    base = origin.repository if origin else None
    adapters = {one.name: open_adapter(one.path, config, base) for one in options.lora}

    def told(name: str) -> dict[str, Any]:
        args = checked_args(folder / name)
        return (with_adapters(args, adapters, config) if adapters else args).told()

    args = told(ARGS_FILE)
    checkpoint = str(open_weights(folder, manifest, options).path)
    command = serve_command(checkpoint, folder)
    try:
        python = find_python(options.tensorrt_llm_python)
    except EnvironmentUnfitError as error:
        raise EnvironmentUnfitError(f"{error.message}. Without nemotrt: {command}") from error
    newer = told(REUSE_FILE) if (folder / REUSE_FILE).exists() else None
    process = LLMProcess(python, checkpoint, args, config.vocab_size, newer)
    return LLMEngine(
        process,
        manifest.engine_limits,
        config.vocab_size,
        reuses_prefixes=bool(process.args["kv_cache_config"]["enable_block_reuse"]),
        adapters=adapters,
    )
