"""Adapters merged at build against PEFT's own merge, in every variant that is understood."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.checkpoint.lora.merged import MergedRef, open_merged
from nemotrt.engines.checkpoint.lora.merging import Merging, read_merging
from nemotrt.errors import ConfigError, NemotrtError
from support import lora

# What PEFT says of transformers' names, and of a head that is adapted.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:peft")
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a list": ("tiny", {"target_modules": lora.HYBRID}),
    "a regular expression": ("tiny", {"target_modules": r".*\.(in_proj|[qk]_proj)"}),
    "all linears": ("tiny-dense", {"target_modules": "all-linear"}),
    "the head": ("tiny", {"target_modules": ["lm_head", "q_proj"]}),
    "rsLoRA": ("tiny-dense", {"target_modules": lora.DENSE, "use_rslora": True}),
    "ranks and alphas of some": (
        "tiny-dense",
        {
            "target_modules": lora.DENSE,
            "rank_pattern": {"up_proj": 2, r"layers\.1\.self_attn\.q_proj": 6},
            "alpha_pattern": {"v_proj": 3, "layers.0.mlp.up_proj": 5},
        },
    ),
    "some layers": (
        "tiny-dense",
        {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    ),
    "without some": ("tiny", {"target_modules": lora.HYBRID, "exclude_modules": ["down_proj"]}),
    "DoRA": ("tiny-dense", {"target_modules": lora.DENSE, "use_dora": True}),
    "a start by a Gaussian": (
        "tiny",
        {"target_modules": ["v_proj"], "init_lora_weights": "gaussian"},
    ),
}

QUICK = ("ranks and alphas of some",)


def check(found: Checkpoint, want: Any, base: Path) -> None:
    """Compare every weight with a merged model's, and the others with the base's."""
    told = want.state_dict()
    plain = open_checkpoint(base)
    changed = 0
    for name, ref in found.tensors.items():
        if not isinstance(ref, MergedRef):
            assert ref == plain[name]
            continue
        changed += 1
        mine, theirs = ref.map(), told[name.replace("backbone.", "model.")].numpy()
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
        assert np.abs(mine - plain[name].map()).max() > 1e-3
        assert ref.read(5, 1000) == mine.tobytes()[5:1005]
        np.testing.assert_array_equal(ref.rows(slice(1, 3)), mine[1:3])
    assert changed


@pytest.mark.parametrize(
    "variant",
    [pytest.param(x, marks=() if x in QUICK else pytest.mark.slow) for x in VARIANTS],
)
def test_a_merge_is_pefts(variant: str, bases: dict[str, Path], tmp_path: Path) -> None:
    name, config = VARIANTS[variant]
    adapter = lora.save_adapter(bases[name], tmp_path / "a", **config)
    want = lora.loaded(bases[name], adapter).merge_and_unload()
    check(open_merged(bases[name], [Merging(adapter)]), want, bases[name])


@pytest.mark.slow
def test_several_adapters_have_weights(bases: dict[str, Path], tmp_path: Path) -> None:
    base = bases["tiny"]
    first = lora.save_adapter(base, tmp_path / "one", target_modules=["in_proj", "q_proj"])
    more = {"target_modules": ["q_proj", "up_proj"], "r": 3, "lora_alpha": 5, "seed": 1}
    second = lora.save_adapter(base, tmp_path / "two", **more)
    model = lora.base_model(base)
    sums: dict[str, Any] = {}
    for adapter, weight in ((first, 0.5), (second, 2.0)):
        merged = lora.loaded(base, adapter).merge_and_unload().state_dict()
        for key, value in model.state_dict().items():
            sums[key] = sums.get(key, value) + weight * (merged[key] - value)
    model.load_state_dict(sums)
    check(open_merged(base, [Merging(first, 0.5), read_merging(f"{second}=2.0")]), model, base)


SPELLINGS: dict[str, Callable[[str], str]] = {
    "transformers": lambda name: name.removeprefix("base_model.model."),
    "in memory": lambda name: name.replace(".weight", ".default.weight"),
    "the hub's own code": lambda name: name.replace("model.model.", "model.backbone."),
    "no root": lambda name: name.removeprefix("base_model.model.model."),
    "vision": lambda name: name.replace("model.model.", "model.model.language_model."),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_writers_spell_names_otherwise(
    spelling: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = lora.write_adapter(bases["tiny"], tmp_path / "a", target_modules=lora.HYBRID)
    merged = open_merged(bases["tiny"], [Merging(adapter)])
    want = {name: np.array(ref.map()) for name, ref in merged.tensors.items()}
    lora.rename(adapter, SPELLINGS[spelling])
    found = open_merged(bases["tiny"], [Merging(adapter)])
    for name, values in want.items():
        np.testing.assert_array_equal(found[name].map(), values)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "modules_to_save is not supported"),
    "fan_in_fan_out": ({"fan_in_fan_out": True}, "Conv1D"),
    "bias": ({"bias": "all"}, "bias 'all'"),
    "lora_bias": ({"lora_bias": True}, "lora_bias"),
    "experts in one piece": ({"target_parameters": ["experts.up_proj"]}, "target_parameters"),
    "a new setting": ({"use_tomorrows": {"a": 1}}, "use_tomorrows is not supported"),
    "PiSSA": ({"init_lora_weights": "pissa_niter_4"}, "path_initial_model_for_weight_conversion"),
    "another method": ({"peft_type": "IA3"}, "IA3"),
    "a classifier": ({"task_type": "SEQ_CLS"}, "SEQ_CLS"),
    "another rank": ({"r": 8}, r"lora_A of model.* is F32 \[4, "),
    "another target": ({"target_modules": ["q_proj"]}, "of different adapters"),
    "more targets": ({"target_modules": ["in_proj", "q_proj"]}, "names 2 linears"),
    "rank 0": ({"r": 0}, "r: Input should be greater"),
    "no regular expression": ({"target_modules": "(in_proj"}, "no regular expression"),
    "no targets": ({"target_modules": None}, "target_modules is missing"),
}


@pytest.fixture(scope="module")
def plain(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the hybrid's in_proj."""
    target = tmp_path_factory.mktemp("plain") / "a"
    return lora.write_adapter(bases["tiny"], target, target_modules=["in_proj"])


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_understood_is_refused_by_name(
    what: str, plain: Path, bases: dict[str, Path], tmp_path: Path
) -> None:
    changes, reason = REFUSED[what]
    adapter = Path(shutil.copytree(plain, tmp_path / "a"))
    lora.edit_config(adapter, **changes)
    with pytest.raises(NemotrtError, match=reason):
        open_merged(bases["tiny"], [Merging(adapter)])


TENSORS = {
    "embeddings": ("model.embeddings.lora_embedding_A", "adapters of embeddings"),
    "a copy": ("base_model.model.lm_head.base_layer.weight", "save_embedding_layers=False"),
    "a whole tensor": ("lm_head.weight", "replaces a whole tensor"),
    "a convolution": ("model.layers.0.mixer.conv1d.lora_A.weight", "conv1d is none of them"),
    "no such layer": ("model.layers.99.mixer.in_proj.lora_A.weight", "for another base model"),
    "another part": ("model.layers.0.mixer.in_proj.lora_C.weight", "lora_A, lora_B"),
    "vision": ("vision.encoder.layers.0.mixer.in_proj.lora_A.weight", "no such linear"),
}


@pytest.mark.parametrize("what", TENSORS)
def test_a_tensor_of_no_linear_is_refused(
    what: str, plain: Path, bases: dict[str, Path], tmp_path: Path
) -> None:
    name, reason = TENSORS[what]
    adapter = Path(shutil.copytree(plain, tmp_path / "a"))
    tensors = {name: torch.zeros(4, 4)}
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(NemotrtError, match=reason):
        open_merged(bases["tiny"], [Merging(adapter)])


def test_another_models_adapter_is_refused(plain: Path, bases: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="for another base model"):
        open_merged(bases["tiny-dense"], [Merging(plain)])


@pytest.mark.parametrize(
    ("told", "is_same"),
    [
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", True),
        ("unsloth/NVIDIA-Nemotron-Nano-9B-v2-unsloth-bnb-4bit", True),
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2-FP8", True),
        ("nvidia/NVIDIA-Nemotron-Nano-12B-v2", False),
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2-Base", False),
        ("/home/somebody/nano", True),
        (None, True),
    ],
)
def test_a_base_models_name_on_the_hub_counts(
    told: str | None, is_same: bool, plain: Path, bases: dict[str, Path], tmp_path: Path
) -> None:
    from nemotrt.engines.checkpoint.lora.adapter import open_adapter

    adapter = Path(shutil.copytree(plain, tmp_path / "a"))
    lora.edit_config(adapter, base_model_name_or_path=told)
    config = open_checkpoint(bases["tiny"]).config
    base = "nvidia/NVIDIA-Nemotron-Nano-9B-v2"
    if is_same:
        assert open_adapter(adapter, config, base).weights
        return
    with pytest.raises(ConfigError, match=r"is an adapter for nvidia/.*, and the base model is"):
        open_adapter(adapter, config, base)


def test_pickles_and_numbers_that_are_none_are_refused(
    plain: Path, bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = Path(shutil.copytree(plain, tmp_path / "a"))
    tensors = lora.stored(adapter)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, adapter / "adapter_model.safetensors")
    found = open_merged(bases["tiny"], [Merging(adapter)])
    with pytest.raises(NemotrtError, match="NaN"):
        [ref.map() for ref in found.tensors.values()]
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ConfigError, match="pickle"):
        open_merged(bases["tiny"], [Merging(adapter)])
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(ConfigError, match="no LoRA adapter"):
        open_merged(bases["tiny"], [Merging(adapter)])


@pytest.mark.slow
def test_a_dora_is_merged_alone_and_whole(bases: dict[str, Path], tmp_path: Path) -> None:
    config = {"target_modules": ["q_proj"], "use_dora": True}
    adapter = lora.save_adapter(bases["tiny"], tmp_path / "a", **config)
    for mergings in ([Merging(adapter, 0.5)], [Merging(adapter)] * 2):
        with pytest.raises(ConfigError, match="alone and whole"):
            open_merged(bases["tiny"], mergings)


def test_a_folder_may_be_called_like_a_weight(tmp_path: Path) -> None:
    assert read_merging("a=0.5") == Merging(Path("a"), 0.5)
    assert read_merging("a=b") == Merging(Path("a=b"))
    (tmp_path / "a=2").mkdir()
    assert read_merging(f"{tmp_path}/a=2") == Merging(tmp_path / "a=2")
    assert str(Merging(Path("a"), 0.5)) == "a=0.5"


def test_other_adapters_give_other_fingerprints(plain: Path, bases: dict[str, Path]) -> None:
    base = bases["tiny"]
    seen = {open_checkpoint(base).fingerprint()}
    for weight in (1.0, 0.5):
        seen.add(open_merged(base, [Merging(plain, weight)]).fingerprint())
    assert len(seen) == 3
