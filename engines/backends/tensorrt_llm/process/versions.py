"""What of TensorRT-LLM is not in every version: the one table.

Sources: TensorRT-LLM's reference of KvCacheConfig of 1.2.1, 1.3.0rc27 and 1.4.0rc4, recipes for
1.3.0rc24, and for avg_seq_len tests of the main branch beside 1.4.0rc4. A version is where a field
was read, which may be later than where it came. NVIDIA/TensorRT-LLM#16598 brought
mamba_state_config with all of its points; before it #12185 had an interval of another name, and 1.2
keeps no recurrent state.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemotrt.engines.backends.protocol.compute_capability import has_fp8
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.needs import TENSORRT_LLM

VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:rc(\d+))?")
OLDEST = TENSORRT_LLM.least
MAMBA_MODULE = "mamba_in_proj"
CURES = {"kv_cache_config.": "build the bundle", "": "build and open the bundle"}
FINAL = 1 << 30  # the "release candidate" that a release is


@dataclass(frozen=True, slots=True)
class Since:
    """An argument, the version that has it, and the option that asks for it."""

    name: str
    version: str
    option: str
    within: str = "kv_cache_config."
    of: str = ""  # which models: adapters of others are in every version

    def is_asked(self, args: Mapping[str, Any]) -> bool:
        """Whether the arguments have it."""
        if self.within:
            return self.name in args["kv_cache_config"]
        return MAMBA_MODULE in (args.get(self.name) or {}).get("lora_target_modules", ())


# Sampling needs no entry: every version from OLDEST has the fields that we send; and so has each
# `cache_salt` of generate_async and `cached_tokens` of a result. Sources: llmapi/llm.py and
# executor/result.py of 1.2.1, llm.py of 1.3.0rc24; for cached_tokens of 1.3.0rc23
# ai-dynamo/dynamo#13567, which ran it. Of a hybrid, the blocks of a prefix are of use only with
# snapshots of its recurrent state.
# Before NVIDIA/TensorRT-LLM#12154 a Nemotron-H takes the argument and applies no adapter; that is
# read in the main branch before LoraConfig moved, and in 1.3.0rc26 it has moved.
STATES_SINCE = "1.3.0rc24"
LORA_SINCE = "1.3.0rc26"
SINCE = (
    Since("mamba_state_config", STATES_SINCE, "--prefix-snapshots"),
    Since("avg_seq_len", "1.4.0rc4", "--avg-seq-len"),
    Since("lora_config", LORA_SINCE, "--max-loras and --lora", "", " for Nemotron-H"),
)


def parse(version: str) -> tuple[int, int, int, int] | None:
    """Return what orders a version, None for what is none; local and post parts don't count."""
    found = VERSION.match(version)
    if found is None:
        return None
    major, minor, patch, candidate = found.groups()
    return int(major), int(minor), int(patch or 0), int(candidate) if candidate else FINAL


def check_version(version: str, args: Mapping[str, Any], compute_capability: str | None) -> None:
    """Raise EnvironmentUnfitError unless a version on that GPU has what the arguments ask for.

    `compute_capability` is None where TensorRT-LLM sees no GPU; then it is the one to say so.
    """
    found = parse(version)
    if found is None or found < _order(OLDEST):
        raise EnvironmentUnfitError(
            f"TensorRT-LLM is of version {version!r}; nemotrt drives {OLDEST} or later."
        )
    if since := lacking(version, args):
        raise EnvironmentUnfitError(
            f"TensorRT-LLM {version} has no {since.within}{since.name}{since.of}, which "
            f"{since.version} has: {CURES[since.within]} without {since.option}."
        )
    if (
        args["kv_cache_config"]["dtype"] == "fp8"
        and compute_capability
        and not has_fp8(compute_capability)
    ):
        raise EnvironmentUnfitError(
            f"the bundle has an FP8 KV cache; this GPU's compute capability {compute_capability} "
            "has no FP8. Build it of a checkpoint that was quantized with --kv-cache none."
        )


def lacking(version: str, args: Mapping[str, Any]) -> Since | None:
    """Return the first that the arguments ask for and a version has not; None if it has all."""
    for since in SINCE:
        if since.is_asked(args) and (parse(version) or ()) < _order(since.version):
            return since
    return None


def _order(version: str) -> tuple[int, int, int, int]:
    """Return what orders a version of ours."""
    found = parse(version)
    if found is None:
        raise ValueError(version)
    return found
