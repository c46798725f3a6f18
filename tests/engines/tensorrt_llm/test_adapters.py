"""`--lora NAME=DIR` on a bundle: what the LLM is told of adapters, and whose answers come back."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.backends.tensorrt_llm.bundle import ARGS_FILE, REUSE_FILE
from nemotrt.engines.backends.tensorrt_llm.llm_args import checked_args, read_llm_args
from nemotrt.engines.backends.tensorrt_llm.lora import lora_config, with_adapters
from nemotrt.engines.backends.tensorrt_llm.options import TensorRTLLMOptions
from nemotrt.engines.backends.tensorrt_llm.process.versions import LORA_SINCE, check_version
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.lora.adapter import open_adapter
from nemotrt.engines.checkpoint.lora.named import NamedAdapter
from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.request import Request
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError
from support import lora
from support.llm_bundle import LIMITS, PROMPT, SHORT
from support.other_world import World
from support.sparse_checkpoint import raw_config

TINY = TINY_MODELS["tiny"]


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> tuple[NamedAdapter, ...]:
    folder = tmp_path_factory.mktemp("adapters")
    every = {"target_modules": lora.HYBRID, "size": 0.2}
    made = {"a": every | {"r": 3, "seed": 1}, "b": every | {"r": 5, "seed": 2}}
    return tuple(
        NamedAdapter(name, lora.write_adapter(TINY, folder / name, **how))
        for name, how in made.items()
    )


def answers(opened: OpenEngine, names: tuple[str, ...]) -> dict[str, list[int]]:
    """Tokens of one prompt with each adapter, all at once."""
    scheduler, found = opened.scheduler(), {name: [] for name in names}
    for name in names:
        params = SamplingParams(max_tokens=12, ignore_eos=True)
        scheduler.submit(Request(name or "none", PROMPT, params, adapter=name))
    while not scheduler.is_idle:
        for update in scheduler.step():
            name = "" if update.request_id == "none" else update.request_id
            found[name] += [token.id for token in update.tokens]
    return found


@pytest.mark.slow
def test_each_request_has_its_own_adapter(
    named: tuple[NamedAdapter, ...], world: World, tmp_path: Path
) -> None:
    """Through TensorRT-LLM's names, its tensors' names and its process: as on the CPU engine."""
    built = {name: tmp_path / name for name in ("bundle", "cpu")}
    spec = BuildSpec("tensorrt-llm", "a10g", limits=LIMITS)
    build_engine(TINY, built["bundle"], spec)
    build_engine(TINY, built["cpu"], BuildSpec("native", limits=LIMITS))
    options = OpenOptions(lora=named)
    with world.chosen(LORA_SINCE):
        opened = open_engine(built["bundle"], options)
    oracle = open_engine(built["cpu"], OpenOptions(1, lora=named))
    try:
        found, want = (answers(one, ("", "a", "b")) for one in (opened, oracle))
        assert found == want
        assert len({tuple(tokens) for tokens in want.values()}) == 3
        with pytest.raises(ConfigError, match="unknown adapter"):
            opened.scheduler().submit(Request("r", PROMPT, SHORT, adapter="c"))
    finally:
        opened.engine.close()
        oracle.engine.close()
    with world.chosen("1.2.1"), pytest.raises(EnvironmentUnfitError, match=re.escape(LORA_SINCE)):
        open_engine(built["bundle"], options)


def test_a_bundle_reserves_room_for_adapters(
    named: tuple[NamedAdapter, ...], tmp_path: Path
) -> None:
    """For trtllm-serve too; every linear has one of TensorRT-LLM's names, graphs are off."""
    options = TensorRTLLMOptions(max_loras=4, max_lora_rank=8, planned_snapshots=64)
    spec = BuildSpec("tensorrt-llm", "a10g", limits=LIMITS, options=options)
    build_engine(TINY, tmp_path / "b", spec)
    for file in (ARGS_FILE, REUSE_FILE):
        told = read_llm_args(tmp_path / "b" / file)
        assert told["cuda_graph_config"] is None
        sizes = [told["lora_config"][f"max_{name}"] for name in ("loras", "cpu_loras", "lora_rank")]
        assert sizes == [4, 4, 8]
    args, config = checked_args(tmp_path / "b" / ARGS_FILE), open_checkpoint(TINY).config
    opened = {one.name: open_adapter(one.path, config) for one in named}
    assert with_adapters(args, opened, config) == args
    small = args.with_lora(lora_config(config, 1, 4))
    with pytest.raises(ConfigError, match=re.escape("--max-loras 2 --max-lora-rank 5")):
        with_adapters(small, opened, config)
    text = (tmp_path / "b" / ARGS_FILE).read_text()
    (tmp_path / "b" / ARGS_FILE).write_text(text.replace("max_loras: 4", "max_loras: 0"))
    with pytest.raises(ArtefactError, match="max_loras"):
        read_llm_args(tmp_path / "b" / ARGS_FILE)


def test_a_rank_without_adapters_is_refused(tmp_path: Path) -> None:
    options = TensorRTLLMOptions(max_lora_rank=8)
    spec = BuildSpec("tensorrt-llm", "a10g", limits=LIMITS, options=options)
    with pytest.raises(ConfigError, match="--max-loras"):
        build_engine(TINY, tmp_path / "b", spec)


# What NemotronHForCausalLM.lora_config maps, of the main branch; plain MLPs are ours.
HOOK = {
    "attn_q": "q_proj",
    "attn_k": "k_proj",
    "attn_v": "v_proj",
    "attn_dense": "o_proj",
    "mamba_in_proj": "in_proj",
    "mamba_out_proj": "out_proj",
    "shared_expert_h_to_4h": "shared_experts.up_proj",
    "shared_expert_4h_to_h": "shared_experts.down_proj",
}
PLAIN = {"mlp_h_to_4h": "up_proj", "mlp_4h_to_h": "down_proj"}
GATED = {"mlp_h_to_4h": "gate_proj", "mlp_gate": "up_proj", "mlp_4h_to_h": "down_proj"}
ATTENTION = dict(list(HOOK.items())[:4])


@pytest.mark.parametrize(
    ("model", "want"),
    [
        ("nemotron-3-nano-30b-a3b", HOOK),
        ("nemotron-nano-9b-v2", ATTENTION | dict(list(HOOK.items())[4:6]) | PLAIN),
        ("qwen3-8b", ATTENTION | GATED),
    ],
)
def test_modules_are_those_of_tensorrt_llm_s_hook(model: str, want: dict[str, str]) -> None:
    found = lora_config(parse_model_config(raw_config(model)), 2, 8)
    assert found.trtllm_modules_to_hf_modules == want
    assert set(found.lora_target_modules) == set(want)
    args = {"kv_cache_config": {"dtype": "auto"}, "lora_config": found.model_dump()}
    if "mamba_in_proj" in want:
        with pytest.raises(EnvironmentUnfitError, match="lora_config for Nemotron-H"):
            check_version("1.3.0rc24", args, None)
    else:
        check_version("1.2.1", args, None)
    check_version("1.4.0rc4", args, None)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head.weight, which TensorRT-LLM leaves"),
        ({"target_modules": ["q_proj"], "alpha_pattern": {"q_proj": 3}}, "one lora_alpha"),
    ],
)
def test_what_it_would_apply_otherwise_is_refused(
    how: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = open_checkpoint(TINY).config
    adapter = open_adapter(lora.write_adapter(TINY, tmp_path / "x", **how), config)
    args = SimpleNamespace(lora_config=None)
    with pytest.raises(ConfigError, match=message) as fault:
        with_adapters(args, {"x": adapter}, config)  # type: ignore[arg-type]
    assert "--lora" in str(fault.value)
    assert json.loads((tmp_path / "x/adapter_config.json").read_text())["r"] == 4
