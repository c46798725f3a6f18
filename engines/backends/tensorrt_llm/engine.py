"""A bundle opened on the GPU host: `tensorrt_llm.LLM` behind our engine's methods."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from nemotrt import needs
from nemotrt.engines.artefact.manifest import Manifest
from nemotrt.engines.artefact.weights import OpenOptions, open_weights
from nemotrt.engines.backends.tensorrt_llm.bundle import ARGS_FILE, serve_command
from nemotrt.engines.backends.tensorrt_llm.llm_args import read_llm_args
from nemotrt.engines.backends.tensorrt_llm.scheduler import LLMScheduler
from nemotrt.engines.backends.tensorrt_llm.token_streams import TokenStreams
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.errors import ConfigError, EnvironmentUnfitError

PACKAGE = "tensorrt_llm"


class LLMEngine:
    """TensorRT-LLM's `LLM`: it owns the state and batches on its own, so requests go in whole."""

    def __init__(self, llm: Any, make_params: Any, limits: Limits, vocab_size: int) -> None:
        """Take over a started LLM; `make_params` is `tensorrt_llm.SamplingParams`."""
        self.limits = limits
        self.vocab_size = vocab_size
        self._llm = llm
        self._make_params = make_params
        self._streams = TokenStreams(llm)

    def scheduler(self, tokenizer: Tokenizer | None, eos_ids: tuple[int, ...]) -> LLMScheduler:
        """Return what drives the LLM; one at a time, as with any engine."""
        return LLMScheduler(self, self._streams, self._make_params, tokenizer, eos_ids)

    def close(self) -> None:
        """End the LLM and its processes."""
        self._streams.close()
        self._llm.shutdown()

    def allocate(self) -> int:
        """Refuse: there are no slots to be had."""
        self._refuse()

    def release(self, slot: int) -> None:
        """Refuse: there are no slots to be had."""
        self._refuse()

    def held_tokens(self, slot: int) -> int:
        """Refuse: there are no slots to be had."""
        self._refuse()

    def step(self, feeds: Sequence[Feed]) -> npt.NDArray[np.float32]:
        """Refuse: the LLM gives tokens, not logits."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(
            "backend tensorrt-llm takes whole requests, not single steps; use generate, serve or "
            "profile with it, and a CPU engine of the same checkpoint for logits."
        )


def check_installed() -> None:
    """Raise EnvironmentUnfitError where TensorRT-LLM is not installed; it is not imported."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise EnvironmentUnfitError(f"TensorRT-LLM is not here. {needs.TENSORRT_LLM.cure}.")


def open_engine(folder: Path, manifest: Manifest, options: OpenOptions) -> LLMEngine:
    """Return the bundle in `folder`, running.

    Raises:
        ArtefactError: the arguments are not TensorRT-LLM's, or the checkpoint has changed.
        EnvironmentUnfitError: TensorRT-LLM is not installed, or can't start here.
    """
    args = read_llm_args(folder / ARGS_FILE)
    checkpoint = str(open_weights(folder, manifest, options).path)
    command = serve_command(checkpoint, folder)
    try:
        package = importlib.import_module(PACKAGE)
    except (ImportError, OSError) as error:  # OSError: a CUDA library that it loads is missing
        raise EnvironmentUnfitError(
            f"TensorRT-LLM is not here ({error}). {needs.TENSORRT_LLM.cure}. There: {command}"
        ) from error
    try:
        llm = package.LLM(checkpoint, skip_tokenizer_init=True, **args)
    except (RuntimeError, ValueError) as error:
        version = getattr(package, "__version__", "?")
        raise EnvironmentUnfitError(
            f"TensorRT-LLM {version} can't start {folder}: {error}"
        ) from error
    vocab_size = read_model_config(folder).vocab_size
    return LLMEngine(llm, package.SamplingParams, manifest.engine_limits, vocab_size)
