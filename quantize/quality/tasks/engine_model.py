"""What lm-eval asks of a model, answered by an engine in this process.

Source: lm-eval 0.4.13, api/model.py: TemplateLM, and models/huggingface.py for windows and cuts.
"""

from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from nemotrt.errors import ConfigError
from nemotrt.quantize.quality.tasks.opened_model import OpenedModel

MAX_GEN_TOKENS = 256  # where a task says nothing, as in lm-eval


class EngineModel(TemplateLM):  # type: ignore[misc]  # lm-eval has no types
    """An open model as lm-eval's LM."""

    def __init__(self, opened: OpenedModel, progress: Any) -> None:
        """Answer by `opened`; `progress` is told of each request."""
        super().__init__()
        self.opened = opened
        self._progress = progress

    @property
    def eot_token_id(self) -> int:
        """What stands before a text without a context."""
        return self.opened.end_ids[0]

    @property
    def prefix_token_id(self) -> int:
        """The beginning of a sequence, where the tokenizer has one."""
        found = [self.opened.tokenizer.token_id(word) for word in ("<s>", "<|begin_of_text|>")]
        return next((token for token in found if token is not None), self.eot_token_id)

    @property
    def tokenizer_name(self) -> str:
        """For lm-eval's caches, which are not used."""
        return "nemotrt"

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Return a text's ids, without a beginning of sequence."""
        return self.opened.tokenizer.encode(string, add_special_tokens=bool(add_special_tokens))

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        found = []
        for _pair, context, continuation in requests:
            room = self.opened.max_tokens + 1 - len(continuation)
            if room < 1 or not continuation:
                raise ConfigError(
                    f"a task scores {len(continuation)} tokens at once, and the engine takes "
                    f"{self.opened.max_tokens}."
                )
            [rows] = self.opened.score(context[-room:], [continuation])
            found.append((float(rows[:, 0].sum(dtype="float64")), bool(rows[:, 1].all())))
            self._progress(1)
        return found

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of whole texts, each token once, in windows that fit."""
        found = []
        for request in requests:
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.opened.max_tokens - 1,
                context_len=1,
            )
            total = 0.0
            for context, continuation in map(make_disjoint_window, windows):
                [rows] = self.opened.score(context, [continuation])
                total += float(rows[:, 0].sum(dtype="float64"))
            found.append(total)
            self._progress(1)
        return found

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Return greedy answers, cut at the task's stops.

        Raises:
            ConfigError: a task samples.
        """
        found = []
        for request in requests:
            context, settings = request.args
            if settings.get("do_sample") and settings.get("temperature", 1.0) > 0:
                raise ConfigError(
                    f"task {request.task_name} samples at a temperature; --tasks answers greedily: "
                    "leave it out."
                )
            stops = settings.get("until") or []
            stops = [stops] if isinstance(stops, str) else list(stops)
            most = int(settings.get("max_gen_toks", MAX_GEN_TOKENS))
            most = min(most, self.opened.max_tokens - 1)
            prompt = self.tok_encode(context)[-(self.opened.max_tokens - most) :]
            found.append(self.opened.answer(prompt, stops, most))
            self._progress(1)
        return found

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return messages as the model's template writes them."""
        assert self.opened.template is not None  # run() refuses it before
        return self.opened.template.render(
            chat_history, add_generation_prompt=add_generation_prompt
        )

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """For lm-eval's record."""
        return "nemotrt" if chat_template else None
