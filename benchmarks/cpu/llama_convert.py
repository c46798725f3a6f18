"""Writes a Nemotron-H or Qwen3 checkpoint as GGUF with llama.cpp's own converter.

`python llama_convert.py LLAMA_CPP CHECKPOINT f16|q8_0 TARGET [vocabulary]`. Two things differ from
its command line: the config is read as it is (through transformers a dense model gets the fields of
a mixture of experts, and the file can't be loaded), and the vocabulary is not written (a benchmark
feeds ids), or taken from tokenizer.json as it is.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

# Whose splitting of texts the shipped tokenizer has.
SPLITTING = "tekken"
NORMAL, CONTROL, UNUSED = 1, 3, 5  # Source: gguf, TokenType


def main(source: str, checkpoint: str, kind: str, target: str, vocabulary: str = "") -> None:
    """Convert one checkpoint."""
    sys.path[:0] = [source, f"{source}/gguf-py"]
    import gguf
    import torch
    from conversion.nemotron import NemotronHModel
    from conversion.qwen import Qwen3Model

    logging.basicConfig(level=logging.WARNING)
    config = json.loads((Path(checkpoint) / "config.json").read_text())
    kind_of_model = {"nemotron_h": NemotronHModel, "qwen3": Qwen3Model}[config["model_type"]]
    if kind_of_model is NemotronHModel:
        config["d_head"] = config["mamba_head_dim"]  # else a check takes it for 64

    def set_vocab(model: Any) -> None:
        """Write the vocabulary, or its size only."""
        if vocabulary:
            return write_vocabulary(model.gguf_writer, Path(checkpoint), config["vocab_size"])
        model.gguf_writer.add_tokenizer_model("none")
        model.gguf_writer.add_vocab_size(config["vocab_size"])

    kind_of_model.set_vocab = set_vocab
    kinds = {
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "bf16": gguf.LlamaFileType.MOSTLY_BF16,
        "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    }
    with torch.inference_mode():
        model = kind_of_model(Path(checkpoint), kinds[kind], Path(target), hparams=config)
        model.write()


def write_vocabulary(writer: Any, folder: Path, size: int) -> None:
    """Write tokens, merges and chat template of a checkpoint; ids beyond its tokens are unused."""
    raw = json.loads((folder / "tokenizer.json").read_text())
    special = {token["id"]: token["content"] for token in raw["added_tokens"]}
    names = {number: name for name, number in raw["model"]["vocab"].items()} | special
    kinds = [
        CONTROL if number in special else NORMAL if number in names else UNUSED
        for number in range(size)
    ]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    by_name = {name: number for number, name in special.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(SPLITTING)
    writer.add_token_list([names.get(number, f"[unused {number}]") for number in range(size)])
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in raw["model"]["merges"]])
    writer.add_bos_token_id(by_name[config["bos_token"]])
    writer.add_eos_token_id(by_name[config["eos_token"]])
    writer.add_add_bos_token(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text())


if __name__ == "__main__":
    main(*sys.argv[1:])
