"""llama.cpp's own conversion of a checkpoint, vocabulary and all.

usage: python llama_convert_whole.py LLAMA_CPP CHECKPOINT f16|q8_0 TARGET

Two things are told to it. The config is given as it is: through transformers a dense model gets the
fields of a mixture of experts. The splitting's name is given: it knows tokenizers by a digest of
what the published ones make of one text, and the tiny models' vocabulary is their own.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(source: str, checkpoint: str, kind: str, target: str) -> None:
    """Convert one checkpoint."""
    sys.path[:0] = [source, f"{source}/gguf-py"]
    import gguf
    import torch
    from conversion.nemotron import NemotronHModel
    from conversion.qwen import Qwen3Model

    folder = Path(checkpoint)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    model_class = {"nemotron_h": NemotronHModel, "qwen3": Qwen3Model}[config["model_type"]]
    if model_class is NemotronHModel:
        config["d_head"] = config["mamba_head_dim"]  # else a check takes it for 64
    model_class.get_vocab_base_pre = lambda self, tokenizer: "tekken"
    model_class._set_vocab_sentencepiece = no_sentencepiece
    if not (folder / "tokenizer.json").is_file():

        def no_vocabulary(model: Any) -> None:
            model.gguf_writer.add_tokenizer_model("none")
            model.gguf_writer.add_vocab_size(config["vocab_size"])

        model_class.set_vocab = no_vocabulary
    file_type = {"f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}[kind]
    with torch.inference_mode():
        model_class(folder, gguf.LlamaFileType[file_type], Path(target), hparams=config).write()


def no_sentencepiece(model: Any) -> None:
    """Say that there is no tokenizer.model, without the package that would read one."""
    raise FileNotFoundError


if __name__ == "__main__":
    main(*sys.argv[1:])
