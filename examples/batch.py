"""A file of prompts in, a file of answers out, by an engine in this process: no server.

usage: python batch.py MODEL IN.jsonl OUT.jsonl

Each line of IN is {"id": ..., "prompt": "..."}; the answers have the same order. MODEL is an engine
directory or a checkpoint, such as tiny. As many prompts run together as the engine has slots.
"""

import json
import sys
from pathlib import Path

from nemotrt import LLM, SamplingParams


def main() -> None:
    """Answer the prompts of a file."""
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    model, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    asked = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines() if line]
    with LLM(model) as llm:
        answers = llm.generate([one["prompt"] for one in asked], SamplingParams(max_tokens=64))
    lines = [
        {"id": one["id"], "text": answer.text, "finish_reason": answer.finish_reason}
        for one, answer in zip(asked, answers, strict=True)
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
