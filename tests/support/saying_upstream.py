"""An upstream that says the same to everybody, before the tiny model's files."""

import asyncio
from collections.abc import AsyncIterator

from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.text.chat.template import load_chat_template
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.upstream.upstream import Fields, UpstreamError

FOLDER = TINY_MODELS["tiny"]
FILES = EngineFiles(
    load_tokenizer(FOLDER), load_chat_template(FOLDER), Limits(8, 512, chunk_tokens=32)
)
SAID = 'Let me see.</think>\n\nOk. <TOOLCALL>[{"name": "now", "arguments": {}}]</TOOLCALL>'


class SayingUpstream:
    """Says the same to everybody, and keeps what it was asked."""

    def __init__(self, said: str = SAID) -> None:
        self.said = said
        self.asked: list[Fields] = []
        self.num_left = 0
        self.pause_s = 0.0
        self.reason = "stop"
        self.fails_after: int | None = None  # so many tokens

    async def generate(self, inputs: Fields) -> AsyncIterator[Fields]:
        self.asked.append(inputs)
        ids = FILES.tokenizer.encode(self.said, add_special_tokens=False)  # type: ignore[union-attr]
        is_whole = False
        text_of = FILES.tokenizer.decoder()  # type: ignore[union-attr]
        try:
            for count, token in enumerate(ids, 1):
                if count - 1 == self.fails_after:
                    raise UpstreamError("engine_failed", "told to fail")
                fields: Fields = {"text_output": text_of(token), "num_input_tokens": 3}
                if inputs.get("return_prompt_log_probs") and count == 1:
                    fields |= {"prompt_ids": [5, 6, 7], "prompt_log_probs": [-1.0, -2.0]}
                    fields |= {"prompt_log_prob_ranks": [1, 2]}
                    fields |= {"top_prompt_log_prob_ids": [[6, 5], [7, 5]]}
                    fields |= {"top_prompt_log_probs": [[-1.0, -3.0], [-2.0, -4.0]]}
                if inputs.get("return_output_ids"):
                    fields["output_ids"] = [token]
                if inputs.get("return_log_probs"):
                    fields["output_log_probs"] = [-0.5]
                if inputs.get("num_top_log_probs"):
                    fields |= {"top_log_prob_ids": [[token, 5]], "top_log_probs": [[-0.5, -1.5]]}
                if inputs.get("return_progress"):
                    fields["num_output_tokens"] = count
                yield fields
                await asyncio.sleep(self.pause_s)
            is_whole = True
            yield {
                "final": True,
                "finish_reason": self.reason,
                "num_input_tokens": 3,
                "num_output_tokens": len(ids),
            }
        finally:
            self.num_left += not is_whole

    async def is_ready(self) -> bool:
        return True

    async def close(self) -> None:
        pass
