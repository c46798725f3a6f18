"""`lora_config`: what TensorRT-LLM is told of adapters, and what of PEFT's it does not apply.

Sources: TensorRT-LLM's _torch/peft/lora/{config,manager}.py and NemotronHForCausalLM.lora_config of
the main branch before 1.3.0rc26: a module is known by the end of its name in PEFT's file; a factor
is lora_alpha over the tensor's own rank, or over its root; tensors of lm_head are skipped without a
word. That hook leaves out the plain MLPs, whose class takes adapters too. Not executed: no GPU.
"""

import re
from collections.abc import Iterable, Mapping

from nemotrt.engines.backends.tensorrt_llm.llm_args import LlmArgs, LoraConfig
from nemotrt.engines.checkpoint.lora.adapter import Adapter
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.tensor_names import linear_names
from nemotrt.errors import ConfigError

OF_LAYER = re.compile(r".*\.layers\.\d+\.\w+\.(?P<leaf>.+)\.weight")
# Its names of modules, by the end of the hub's. A gated MLP's `gate_proj` is its h_to_4h.
MODULES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_dense",
    "in_proj": "mamba_in_proj",
    "out_proj": "mamba_out_proj",
    "up_proj": "mlp_h_to_4h",
    "down_proj": "mlp_4h_to_h",
    "shared_experts.up_proj": "shared_expert_h_to_4h",
    "shared_experts.down_proj": "shared_expert_4h_to_h",
    "fc1_latent_proj": "moe_latent_fc1",
    "fc2_latent_proj": "moe_latent_fc2",
}
GATED = {"gate_proj": "mlp_h_to_4h", "up_proj": "mlp_gate"}


def lora_config(config: ModelConfig, max_loras: int, max_rank: int) -> LoraConfig:
    """Return room for so many adapters of any linear that it adapts, each of at most `max_rank`."""
    leaves = dict.fromkeys(_leaf(name) for name in linear_names(config))
    known = MODULES | (GATED if "gate_proj" in leaves else {})
    named = {known[leaf]: leaf for leaf in leaves if leaf in known}
    return LoraConfig(
        max_lora_rank=max_rank,
        max_loras=max_loras,
        max_cpu_loras=max_loras,
        lora_target_modules=list(named),
        trtllm_modules_to_hf_modules=named,
    )


def with_adapters(args: LlmArgs, adapters: Mapping[str, Adapter], config: ModelConfig) -> LlmArgs:
    """Return the arguments with room for these adapters, unless they have it.

    Raises:
        ConfigError: TensorRT-LLM would not apply an adapter as PEFT does, or the room is too small.
    """
    for name, adapter in adapters.items():
        _check(name, adapter, config)
    max_rank = max(own.rank for adapter in adapters.values() for own in adapter.weights.values())
    room = args.lora_config
    if room is None:
        return args.with_lora(lora_config(config, len(adapters), max_rank))
    if max_rank > room.max_lora_rank or len(adapters) > room.max_loras:
        raise ConfigError(
            f"the bundle has room for {room.max_loras} adapters of rank {room.max_lora_rank}, and "
            f"these are {len(adapters)} of at most {max_rank}: build it with --max-loras "
            f"{len(adapters)} --max-lora-rank {max_rank}."
        )
    return args


def _leaf(weight: str) -> str:
    found = OF_LAYER.fullmatch(weight)
    return found["leaf"] if found else weight


def _check(name: str, adapter: Adapter, config: ModelConfig) -> None:
    """Raise ConfigError for what TensorRT-LLM drops or scales otherwise."""
    if adapter.has_magnitudes:
        why = "it is a DoRA"
    elif other := _first_unknown(adapter.weights, config):
        why = f"it changes {other}, which TensorRT-LLM leaves as it is"
    elif adapter.config.alpha_pattern:
        why = "it has an alpha_pattern, and TensorRT-LLM knows one lora_alpha alone"
    else:
        return
    raise ConfigError(
        f"adapter {name}: {why}. Merge it into the weights: nemotrt quantize CHECKPOINT "
        f"--lora {adapter.path}, and build the bundle of the result."
    )


def _first_unknown(weights: Iterable[str], config: ModelConfig) -> str | None:
    known = lora_config(config, 1, 1).trtllm_modules_to_hf_modules.values()
    return next((weight for weight in weights if _leaf(weight) not in known), None)
