"""Writes a Nemotron-H checkpoint as GGUF with llama.cpp's own converter.

`python llama_convert.py LLAMA_CPP CHECKPOINT f16|q8_0 TARGET`. Two things differ from its command
line: the config is read as it is (through transformers a dense model gets the fields of a mixture
of experts, and the file can't be loaded), and no vocabulary is written (a benchmark feeds ids).
"""

import json
import logging
import sys
from pathlib import Path


def main(source: str, checkpoint: str, kind: str, target: str) -> None:
    """Convert one checkpoint."""
    sys.path[:0] = [source, f"{source}/gguf-py"]
    import gguf
    import torch
    from conversion.nemotron import NemotronHModel

    logging.basicConfig(level=logging.WARNING)
    config = json.loads((Path(checkpoint) / "config.json").read_text())
    config["d_head"] = config["mamba_head_dim"]  # else a check takes it for 64

    def set_vocab(model: NemotronHModel) -> None:
        """Write the vocabulary's size only."""
        model.gguf_writer.add_tokenizer_model("none")
        model.gguf_writer.add_vocab_size(config["vocab_size"])

    NemotronHModel.set_vocab = set_vocab  # type: ignore[method-assign]
    kinds = {"f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
    with torch.inference_mode():
        model = NemotronHModel(Path(checkpoint), kinds[kind], Path(target), hparams=config)
        model.write()


if __name__ == "__main__":
    main(*sys.argv[1:])
