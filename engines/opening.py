"""Opens an engine directory: manifest, files, backend, tokenizer, chat template."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nemotrt.engines.artefact.executed import NOT_CHECKED, checked
from nemotrt.engines.artefact.manifest import Manifest, read_manifest, verify_files
from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions
from nemotrt.engines.artefact.weights import Place, check_given, find_weights, same_checkpoint
from nemotrt.engines.backends import registry
from nemotrt.engines.checkpoint.lora.named import NamedAdapter
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.runtime.engine import Engine, KeepsState, TakesDrafts
from nemotrt.engines.runtime.request_scheduler import RequestScheduler, SchedulesItself
from nemotrt.engines.runtime.scheduling.reuse import KeepRules, Reuse
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.runtime.speculation.options import AUTO, OFF
from nemotrt.engines.runtime.speculation.speculation import Speculation
from nemotrt.engines.runtime.state.kept.options import KeptSsm, PrefixCacheOptions
from nemotrt.engines.runtime.state.kept.prefix_cache import PrefixCache
from nemotrt.engines.text.chat.template import ChatTemplate, load_chat_template
from nemotrt.engines.text.tokenizer import Tokenizer, load_tokenizer
from nemotrt.errors import ConfigError


@dataclass(frozen=True, slots=True)
class OpenEngine:
    """An engine that is ready to run, with what turns text into its tokens and back."""

    manifest: Manifest
    engine: Engine
    tokenizer: Tokenizer | None
    template: ChatTemplate | None
    eos_ids: tuple[int, ...]
    checked: str = NOT_CHECKED  # what `nemotrt check` found of it

    @property
    def facts(self) -> dict[str, str | int]:
        """What a result or a server's metrics say of the engine."""
        return self.manifest.facts | {"checked": self.checked}

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Every id that ends a sequence: the configuration's and the tokenizer's."""
        own = () if self.tokenizer is None else self.tokenizer.eos_ids
        return tuple(dict.fromkeys((*self.eos_ids, *own)))

    def scheduler(
        self, target_itl_s: float | None = None, kept_bytes: int = 0, *, halves_kept: bool = False
    ) -> RequestScheduler:
        """Return a scheduler over the engine: ours, or the engine's own.

        Args:
            target_itl_s: what a step should take that feeds prompts beside tokens; default any.
            kept_bytes: of host memory for the states of prompts, for later ones; 0 keeps none.
            halves_kept: float32 states are kept in float16; the answers are not exact then.

        Raises:
            ConfigError: a target is given to an engine that schedules for itself, or bytes to one
                whose states can't be kept.
        """
        if kept_bytes and not isinstance(self.engine, KeepsState):
            raise ConfigError(
                f"--prefix-cache-gib is for engines whose states we keep; {self.manifest.backend} "
                "is none."
            )
        if not isinstance(self.engine, SchedulesItself):
            ends, reuse = self.eos_ids, None
            if kept_bytes and isinstance(self.engine, KeepsState):
                sizes = self.engine.state_bytes
                cache = PrefixCache(kept_bytes, sizes, is_halved=halves_kept)
                reuse = Reuse(self.engine, cache, self._keep_rules())
            speculation = None
            if isinstance(self.engine, TakesDrafts) and self.engine.max_draft > 1:
                speculation = Speculation(self.engine)
            return Scheduler(
                self.engine,
                self.tokenizer,
                eos_ids=ends,
                target_itl_s=target_itl_s,
                reuse=reuse,
                speculation=speculation,
            )
        if target_itl_s is not None:
            raise ConfigError(
                f"--target-itl-ms is for engines that we schedule; {self.manifest.backend} "
                "schedules for itself."
            )
        return self.engine.scheduler(self.tokenizer, self.eos_ids)

    def keeping_scheduler(
        self, options: PrefixCacheOptions, target_itl_s: float | None = None
    ) -> RequestScheduler:
        """Return a scheduler that keeps as much as a user's options and this machine allow.

        Raises:
            ConfigError: as `scheduler`; or there is less memory than the options ask for.
        """
        can_keep = isinstance(self.engine, KeepsState)
        kept_bytes = options.limit_bytes(self.manifest.backend, can_keep=can_keep)
        is_halved = options.prefix_cache_ssm is KeptSsm.FLOAT16
        return self.scheduler(target_itl_s, kept_bytes, halves_kept=is_halved)

    def _keep_rules(self) -> KeepRules:
        """Return how the model's family writes chats; without a tokenizer there are none."""
        if self.tokenizer is None:
            return KeepRules()
        chat = self.tokenizer.chat
        found = (self.tokenizer.token_id(role) for role in chat.roles)
        markers = frozenset(token for token in found if token is not None)
        return KeepRules(markers, chat.answers_return)


def open_engine(
    folder: Path, options: OpenOptions = AS_BUILT, *, verify: bool = True
) -> OpenEngine:
    """Return the open engine in `folder`.

    Args:
        folder: an engine directory.
        options: how it is opened.
        verify: check the SHA-256 of every file first; that of bound weights is always checked.

    Raises:
        ArtefactError: the folder is no engine directory, or a file or weight has changed.
        ConfigError: CPU threads are given for a backend that computes elsewhere, or
            TensorRT-LLM's Python for another backend.
        EnvironmentUnfitError: the backend can't run on this machine.
    """
    manifest = checked_manifest(folder, options, verify=verify)
    config = read_model_config(folder)
    tokenizer, template = load_tokenizer(folder), load_chat_template(folder)
    engine = registry.find(manifest.backend).open(folder, manifest, options)
    found = checked(folder, manifest)
    return OpenEngine(manifest, engine, tokenizer, template, config.eos_token_ids, found)


def checked_manifest(folder: Path, options: OpenOptions, *, verify: bool = True) -> Manifest:
    """Return an engine's manifest, with all checked but what its backend checks as it opens it.

    Raises:
        ArtefactError: a file has changed, or the checkpoint that is given is not the engine's.
        ConfigError: an option is for other engines.
    """
    manifest = read_manifest(folder)
    check_threads(manifest, options.num_threads)
    check_python(manifest, options.tensorrt_llm_python)
    check_speculate(manifest, options.speculate)
    check_mapping(manifest, options)
    check_adapters(manifest, options.lora)
    if verify:
        verify_files(folder, manifest, trust_seals=options.trust_seals)
    if not reads_checkpoint(manifest):
        check_given(folder, manifest, options.checkpoint)
    return manifest


def reads_checkpoint(manifest: Manifest) -> bool:
    """Whether an engine reads its weights from a checkpoint when it is opened."""
    return registry.find(manifest.backend).reads_checkpoint(manifest)


def leaves_weights(manifest: Manifest) -> bool:
    """Whether an engine's weights lie outside its folder: it is not packed."""
    return reads_checkpoint(manifest) and Path(manifest.checkpoint.path).is_absolute()


def weights_place(folder: Path, manifest: Manifest, given: str | None) -> Place | None:
    """Return where an engine's weights are, None where it holds them; they are not read yet.

    Raises:
        ArtefactError: the checkpoint has gone, or it is another one than the engine was built from.
        ConfigError: what is given is no checkpoint.
    """
    if not reads_checkpoint(manifest):
        check_given(folder, manifest, given)
        return None
    place = find_weights(folder, manifest, given)
    same_checkpoint(folder, manifest, place)
    return place


def check_runs_here(folder: Path, manifest: Manifest) -> None:
    """Raise EnvironmentUnfitError where another program than ours runs the engine, anywhere."""
    backend = registry.find(manifest.backend)
    if backend.host_steps(folder) is not None:
        backend.open(folder, manifest, AS_BUILT)  # which says what runs it


def check_threads(manifest: Manifest, num_threads: int | None) -> None:
    """Raise ConfigError if CPU threads are given for an engine that has no use for them."""
    names = registry.cpu_names()
    if num_threads is not None and manifest.backend not in names:
        raise ConfigError(
            f"--threads is for backends {' and '.join(names)}; this engine is {manifest.backend}'s."
        )


def check_python(manifest: Manifest, python: str | None) -> None:
    """Raise ConfigError if TensorRT-LLM's Python is given for an engine of another backend."""
    if python is not None and not registry.find(manifest.backend).has_own_python:
        names = [backend.name for backend in registry.backends() if backend.has_own_python]
        raise ConfigError(
            f"--tensorrt-llm-python is for bundles of {' and '.join(names)}; this engine is "
            f"{manifest.backend}'s."
        )


def check_mapping(manifest: Manifest, options: OpenOptions) -> None:
    """Raise ConfigError if an engine is told what only those that map weights can do."""
    given = {
        "--weight-pages": options.weight_pages is not AS_BUILT.weight_pages,
        "--pin-threads": options.pins_threads,
    }
    if registry.find(manifest.backend).maps_weights:
        return
    names = [backend.name for backend in registry.backends() if backend.maps_weights]
    for flag in (flag for flag, is_given in given.items() if is_given):
        raise ConfigError(
            f"{flag} is for engines of {' and '.join(names)}; this engine is "
            f"{manifest.backend}'s: leave it out."
        )


def check_adapters(manifest: Manifest, adapters: Sequence[NamedAdapter]) -> None:
    """Raise ConfigError if adapters are given for an engine that runs none beside its weights."""
    if not adapters or registry.find(manifest.backend).takes_adapters:
        return
    names = [backend.name for backend in registry.backends() if backend.takes_adapters]
    raise ConfigError(
        f"--lora NAME=DIR is for engines of {' and '.join(names)}; this engine is "
        f"{manifest.backend}'s. Merge the adapter into its weights: nemotrt build CHECKPOINT "
        f"--backend {manifest.backend} --lora {adapters[0].path}."
    )


def check_speculate(manifest: Manifest, word: str) -> None:
    """Raise ConfigError if a number of guesses is given for an engine that takes none."""
    if word in (AUTO, OFF) or registry.find(manifest.backend).takes_drafts:
        return
    names = [backend.name for backend in registry.backends() if backend.takes_drafts]
    raise ConfigError(
        f"--speculate {word} is for engines of {' and '.join(names)}; this engine is "
        f"{manifest.backend}'s: leave it out."
    )
