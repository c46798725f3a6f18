"""A model that also sees and hears, as transformers itself writes it: its language model runs."""

import json
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForMultimodalLM

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.options import AS_BUILT
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from support import reference

TOWER = {"model_type": "radio", "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}
SIZES = {"projector_hidden_size": 32, "vision_hidden_size": 32}


def test_nemotron_3_nano_omni(tmp_path: Path) -> None:
    """Its config has text_config, as transformers 5.24 writes it; released ones have llm_config."""
    words = reference.nemotron_h("M-E*")
    tower = TOWER | {"num_attention_heads": 2, "video_temporal_patch_size": 2}
    told = AutoConfig.for_model(
        "nemotron_h_omni", text_config=words.config.to_dict(), vision_config=tower, **SIZES
    )
    whole = AutoModelForMultimodalLM.from_config(told)
    whole.language_model.load_state_dict(words.state_dict())
    folder = reference.save(whole, tmp_path / "omni")
    raw = json.loads((folder / "config.json").read_text())
    assert raw["model_type"] == "nemotron_h_omni" and "llm_config" not in raw
    checkpoint = open_checkpoint(folder)
    spared = [n for n in load_file(folder / "model.safetensors") if "language_model." not in n]
    (note,) = checkpoint.notes()
    assert f"{len(spared)} tensors are no part of this model, left out" in note
    older = {key: value for key, value in raw.items() if key != "text_config"}
    older |= {"model_type": "NemotronH_Nano_Omni_Reasoning_V3", "llm_config": raw["text_config"]}
    assert parse_model_config(older) == checkpoint.config
    build_engine(folder, tmp_path / "e", BuildSpec("native", limits=Limits(1, 32, 16)))
    engine = open_engine(tmp_path / "e", AS_BUILT).engine
    found = engine.step([Feed(engine.allocate(), list(range(12)))])[0].copy()
    engine.close()
    expected = reference.logits(words, list(range(12)))[-1]
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
