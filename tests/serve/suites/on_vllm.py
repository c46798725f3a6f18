"""vLLM's suite against our server: its `RemoteOpenAIServer` starts ours, and that is all.

vLLM itself isn't there, nor PyTorch: it would be gigabytes, for what asks a server over HTTP. What
a test wants of them is `Absent`, which says so when it is used; never a stand-in that agrees.
Tokenizers are those of the model that is served, whatever name is asked for.
"""

import importlib.abc
import importlib.machinery
import os
import re
import sys
import types
from pathlib import Path
from typing import ClassVar

import anthropic
import openai
import ours
import pytest
import transformers

MISSING = (
    "PIL",
    "fastapi",
    "hypothesis",
    "lm_eval",
    "model_hosting_container_standards",
    "openai_harmony",
    "schemathesis",
    "torch",
    "vllm",
)


NAMED = re.compile(r'^[A-Z_]*MODEL[A-Z_]* = "([^"]+)"', re.MULTILINE)
FOUND = {
    name
    for path in Path("tests/entrypoints").rglob("*.py")
    for name in NAMED.findall(path.read_text("utf-8"))
}
SERVED = ("claude-3-7-sonnet-latest",)  # what fixtures call it by --served-model-name
NAMES = [part for name in sorted({*FOUND, *SERVED}) for part in ("--served-model-name", name)]


class AbsentError(Exception):
    """A test uses what is vLLM's own."""


class Absent:
    """Something that isn't there."""

    def __init__(self, name: str) -> None:
        self.absent = name

    def __getattr__(self, name: str) -> "Absent":
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self.absent}.{name}")

    def __call__(self, *args: object, **kwargs: object) -> None:
        raise AbsentError(f"{self.absent} is not here")

    def __getitem__(self, key: object) -> "Absent":
        return self

    def __or__(self, other: object) -> "Absent":
        return self

    __ror__ = __or__

    def __mro_entries__(self, bases: tuple) -> tuple:
        return ()


class AbsentModule(types.ModuleType):
    """A module whose every name is absent."""

    __path__: ClassVar[list] = []

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self.__name__}.{name}")


class Platform:
    """This machine, as far as tests ask whether to skip: it is no accelerator of any kind."""

    def __getattr__(self, name: str) -> object:
        if not name.startswith("is_"):
            return Absent(f"vllm.platforms.current_platform.{name}")
        return lambda *args: False


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds what is missing, once nothing else does."""

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        if name.partition(".")[0] in MISSING:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> AbsentModule:
        return AbsentModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        for name, value in PRESENT.get(module.__name__, {}).items():
            setattr(module, name, value)


class RemoteOpenAIServer:
    """A server of ours; all of the suite's names for a model are names of ours."""

    DUMMY_API_KEY = "token-abc123"

    def __init__(self, model: str, vllm_serve_args: list[str], **more: object) -> None:
        options = list(NAMES)
        key = (more.get("env_dict") or {}).get("VLLM_API_KEY")
        if "--api-key" in vllm_serve_args:
            key = vllm_serve_args[vllm_serve_args.index("--api-key") + 1]
        if key is not None:
            options += ["--api-key-file", ours.key_file(key)]
        self._root = ours.address(tuple(options)).removesuffix("/v1")
        self.host, _, port = self._root.removeprefix("http://").partition(":")
        self.port = int(port)

    def __enter__(self) -> "RemoteOpenAIServer":
        return self

    def __exit__(self, *raised: object) -> None:
        pass

    @property
    def url_root(self) -> str:
        return self._root

    def url_for(self, *parts: str) -> str:
        return "/".join([self._root, *(part.strip("/") for part in parts if part)])

    def _client(self, kind: type, base: str, more: dict) -> object:
        told = {"timeout": 600, "max_retries": 0, "api_key": self.DUMMY_API_KEY, **more}
        return kind(base_url=base, **told)

    def get_client(self, **more: object) -> object:
        return self._client(openai.OpenAI, self.url_for("v1"), more)

    def get_async_client(self, **more: object) -> object:
        return self._client(openai.AsyncOpenAI, self.url_for("v1"), more)

    def get_client_anthropic(self, **more: object) -> object:
        return self._client(anthropic.Anthropic, self._root, more)

    def get_async_client_anthropic(self, **more: object) -> object:
        return self._client(anthropic.AsyncAnthropic, self._root, more)


def tokenizer(*args: object, **kwargs: object) -> object:
    """Return the tokenizer of the model that is served."""
    return transformers.PreTrainedTokenizerFast.from_pretrained(os.environ["SUITE_ENGINE"])


def on_gpus(*args: object, **kwargs: object) -> object:
    """Return the mark of a test that wants GPUs."""
    return pytest.mark.skip("it wants GPUs of its own")


class Hub:
    """The hub, from which nothing is downloaded: an adapter's folder is not looked into."""

    def snapshot_download(self, *args: object, **kwargs: object) -> str:
        return "absent"


PRESENT = {  # the little that tests need of what is missing before they ask a server
    "vllm.platforms": {"current_platform": Platform()},
    "vllm.tokenizers": {"get_tokenizer": tokenizer},
    "vllm.transformers_utils.repo_utils": {"hf_api": Hub},
    "vllm.version": {"_prev_minor_version": lambda: "0.31"},
    "tests.conftest": {},
    "tests.utils": {
        "RemoteOpenAIServer": RemoteOpenAIServer,
        "ROCM_EXTRA_ARGS": [],
        "ROCM_ENV_OVERRIDES": {},
        "VLLM_PATH": Path("absent"),
        "multi_gpu_only": on_gpus,
        "multi_gpu_test": on_gpus,
        "requires_fp8": on_gpus(),
    },
}
transformers.AutoTokenizer.from_pretrained = tokenizer
finder = Finder()
sys.meta_path.append(finder)
for name in ("tests.utils", "tests.conftest"):
    sys.modules[name] = AbsentModule(name)
    finder.exec_module(sys.modules[name])
