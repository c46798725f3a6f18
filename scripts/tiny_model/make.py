"""Makes the tiny models from nothing: corpus, tokenizer, training, export, evaluation.

    python scripts/tiny_model/make.py --out engines/tiny --cache ~/.cache/nemotrt-tiny

Each stage leaves its result in the cache folder and is skipped when that is there, training
resumes from its last checkpoint: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tokenizers import Tokenizer

from corpus import write_corpus
from dataset import read_corpus, tokenizer_texts, write_tokens
from export import export
from shapes import CONFIGS
from tokenizer import train_tokenizer, write_tokenizer

HERE = Path(__file__).resolve().parent


def make_tokenizer(cache: Path, out: Path) -> None:
    """Trains the tokenizer on training documents; writes it for both models."""
    path = cache / "tokenizer.json"
    if not path.exists():
        texts = tokenizer_texts(read_corpus(cache / "train.jsonl"))
        train_tokenizer(texts).save(str(path))
    tokenizer = Tokenizer.from_file(str(path))
    template = (HERE / "chat_template.jinja").read_text(encoding="utf-8").rstrip("\n")
    for kind in CONFIGS:
        write_tokenizer(tokenizer, template, out / kind)


def train_all(cache: Path, minutes: float) -> None:
    """Trains the models side by side, one thread each, in processes of the lowest priority."""
    script = str(HERE / "train.py")
    options = ["--cache", str(cache), "--budget-s", str(60 * minutes), "--threads", "1"]
    children = [
        subprocess.Popen(
            ["nice", "-n", "19", sys.executable, script, kind, *options],
        )
        for kind in CONFIGS
    ]
    if any([child.wait() for child in children]):
        raise SystemExit("Training failed; see its messages above.")


def main() -> None:
    """Reads the command line and runs the stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model folders")
    parser.add_argument("--cache", type=Path, required=True, help="folder for what is not shipped")
    parser.add_argument("--minutes", type=float, default=50, help="training time of both models")
    arguments = parser.parse_args()
    cache, out = arguments.cache.expanduser().resolve(), arguments.out.resolve()
    if not (cache / "corpus.json").exists():
        write_corpus(cache, out / "heldout")
    make_tokenizer(cache, out)
    if not (cache / "train.npy").exists():
        print(f"{write_tokens(cache, out / 'nemotron_h')} training tokens", flush=True)
    train_all(cache, arguments.minutes)
    for kind in CONFIGS:
        export(kind, cache / f"{kind}.pt", out / kind)
    folders = [str(out / kind) for kind in CONFIGS]
    held_out = ["--held-out", str(out / "heldout")]
    subprocess.run([sys.executable, str(HERE / "evaluate.py"), *folders, *held_out], check=True)


if __name__ == "__main__":
    main()
