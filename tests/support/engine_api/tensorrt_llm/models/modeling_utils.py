"""Source: 1.2 tensorrt_llm/models/modeling_utils.py: configuration, loading, quantization."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from nemotrt.engines.checkpoint.stored.safetensors_file import read_header

from .. import quantization
from ..functional import PositionEmbeddingType, QuantMode
from ..module import Module
from .generation_mixin import GenerationMixin

MODEL_MAP = ("MambaForCausalLM", "RecurrentGemmaForCausalLM", "LlamaForCausalLM")
QUANT_ALGOS = (None, "W8A16", "W8A8_SQ_PER_CHANNEL", "FP8", "FP8_PER_CHANNEL_PER_TOKEN")
DTYPES = {"BF16": "bfloat16", "F32": "float32", "I8": "int8", "F8_E4M3": "fp8"}


def get_kv_cache_type_from_legacy(use_cache: bool, paged_kv_cache: bool) -> str:
    return ("paged" if paged_kv_cache else "continuous") if use_cache else "disabled"


@dataclass
class QuantConfig:
    quant_algo: str | None = None
    kv_cache_quant_algo: str | None = None
    group_size: int = 128
    smoothquant_val: float = 0.5
    clamp_val: list[float] | None = None
    use_meta_recipe: bool = False
    has_zero_point: bool = False
    pre_quant_scale: bool = False
    exclude_modules: list[str] | None = None

    def __post_init__(self):
        assert self.quant_algo in QUANT_ALGOS
        assert self.kv_cache_quant_algo in (None, "FP8", "INT8", "NVFP4")


class PretrainedConfig:
    def __init__(
        self,
        *,
        architecture,
        dtype,
        hidden_size,
        num_hidden_layers,
        num_attention_heads,
        vocab_size=None,
        hidden_act="gelu",
        logits_dtype="float32",
        norm_epsilon=1e-5,
        position_embedding_type="learned_absolute",
        max_position_embeddings=None,
        rotary_embedding_dim=None,
        num_key_value_heads=None,
        intermediate_size=None,
        mapping=None,
        quantization=None,
        use_parallel_embedding=False,
        embedding_sharding_dim=0,
        head_size=None,
        qk_layernorm=False,
        runtime_defaults=None,
        **kwargs,
    ):
        assert architecture in MODEL_MAP, f"Unsupported architecture: {architecture}"
        given = {k: v for k, v in locals().items() if k not in ("self", "kwargs")}
        self.__dict__.update(given | kwargs)
        self.position_embedding_type = PositionEmbeddingType.from_string(position_embedding_type)
        self.quantization = QuantConfig(**quantization)

    def set_rank(self, rank):
        size = self.mapping["tp_size"]
        assert self.mapping == {"world_size": size, "tp_size": size, "pp_size": 1}
        self.mapping = SimpleNamespace(
            tp_size=size,
            tp_rank=rank,
            tp_group=list(range(size)),
            pp_layers=lambda num_layers: list(range(num_layers)),
        )

    @property
    def quant_mode(self):
        has_fp8_cache = self.quantization.kv_cache_quant_algo == "FP8"
        return QuantMode.FP8_KV_CACHE if has_fp8_cache else QuantMode.NONE

    @property
    def kv_dtype(self):
        return "fp8" if self.quant_mode & QuantMode.FP8_KV_CACHE else self.dtype


class PostInitCaller(type):
    def __call__(cls, *args, **kwargs):
        made = super().__call__(*args, **kwargs)
        made.__post_init__()
        return made


class PretrainedModel(Module, GenerationMixin, metaclass=PostInitCaller):
    IS_HOPPER = False  # of the GPU that runs the engine; 1.2 asks CUDA

    def __init__(self, config):
        assert config.head_size is not None

    def __post_init__(self):
        quantization.quantize(self, self.config.quantization, self.IS_HOPPER)

    @classmethod
    def from_checkpoint(cls, ckpt_dir, rank):
        config = PretrainedConfig(**json.loads((Path(ckpt_dir) / "config.json").read_text()))
        config.set_rank(rank)
        refs = read_header(Path(ckpt_dir) / f"rank{rank}.safetensors")[0]
        weights = {name: (DTYPES[ref.dtype], ref.map()) for name, ref in refs.items()}
        _preprocess(weights, config.quantization)
        model = cls(config)
        model.load(weights)
        return model

    def load(self, weights):
        parameters = dict(self.named_parameters())
        assert parameters.keys() == weights.keys(), parameters.keys() ^ weights.keys()
        for name, parameter in parameters.items():
            dtype, values = weights[name]
            assert (dtype, values.shape) == (parameter.dtype, parameter.shape), name
            is_code = dtype in ("int8", "fp8")
            parameter.load(values if is_code else values.astype(np.float32))


def _preprocess(weights, quant_config):
    """The reciprocal of cache scales; weight-only's own rounding would take floats by name."""
    for name in list(weights):
        if name.endswith(".kv_cache_scaling_factor"):
            other = name.replace("kv_cache_scaling", "kv_cache_rcp_scaling")
            weights[other] = ("float32", 1 / weights[name][1])
    if quant_config.quant_algo == "W8A16":
        pattern = re.compile(r"(qkv|dense|fc|proj|gate)\.weight$")
        floats = [n for n, (d, _) in weights.items() if pattern.search(n) and d != "int8"]
        assert not floats, f"TensorRT-LLM would quantize {floats}"
