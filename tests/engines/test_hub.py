"""Hub ids against a hub on loopback, by the real client: cache, download, what is refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import click
import huggingface_hub.constants
import huggingface_hub.file_download
import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.engines.checkpoint.hub import download
from nemotrt.engines.checkpoint.hub.cache import hub_cache
from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder, meaning
from nemotrt.engines.checkpoint.hub.hub_id import HubId, is_repository, parse_hub_id
from nemotrt.engines.checkpoint.hub.origin import Origin, origin_of
from nemotrt.engines.checkpoint.hub.parts import Part
from nemotrt.engines.checkpoint.hub.token import token_held
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError, NemotrtError
from support.hub import Hub, Repository, serving

INDEX = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
SHARDED = {
    "config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b'{"a": 1}',
    "generation_config.json": b'{"b": 1}',
    "additional_chat_templates/tool_use.jinja": b"hi",
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    "model-1.safetensors": bytes(range(256)) * 1200,
    "model-2.safetensors": bytes(reversed(range(256))) * 1200,
    "pytorch_model.bin": b"pickle",
    "modeling_nemotron_h.py": b"import os",
    "evil.pt": b"pickle",
    "README.md": b"#",
    "other.safetensors": b"not in the index",
}
TAKEN = {
    name
    for name in SHARDED
    if name not in ("pytorch_model.bin", "evil.pt", "README.md", "other.safetensors")
    and not name.endswith(".py")
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, an empty cache, the network allowed."""
    with serving() as served:
        served.repositories["x/tiny"] = Repository(dict(SHARDED), tags=("v1", "refs/pr/1"))
        for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)
        monkeypatch.chdir(tmp_path)
        yield served


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def fault(kind: type[NemotrtError], name: str = "x/tiny", **how: bool) -> str:
    with pytest.raises(kind) as caught:
        checkpoint_folder(name, **how)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_only_what_a_checkpoint_needs_is_downloaded_then_the_cache_serves(hub: Hub) -> None:
    folder = checkpoint_folder("x/tiny")
    commit = hub.repositories["x/tiny"].commit
    assert folder == hub_cache() / "models--x--tiny" / "snapshots" / commit
    assert names(folder) == TAKEN
    assert all((folder / name).read_bytes() == SHARDED[name] for name in TAKEN)
    assert (folder / "model-1.safetensors").is_symlink()
    assert hub.fetched()[-2:] == ["model-1.safetensors", "model-2.safetensors"]
    assert origin_of(folder) == Origin(repository="x/tiny", revision=commit)

    hub.asked.clear()
    assert checkpoint_folder("x/tiny") == checkpoint_folder(f"x/tiny@{commit}") == folder
    assert not hub.asked


def test_the_client_of_other_libraries_finds_the_same_cache(hub: Hub) -> None:
    folder = checkpoint_folder("x/tiny")
    found = huggingface_hub.hf_hub_download(
        "x/tiny", "config.json", cache_dir=hub_cache(), local_files_only=True
    )
    assert Path(found) == folder / "config.json"


@pytest.mark.parametrize("revision", ["v1", "refs/pr/1"])
def test_a_revision_is_a_tag_or_a_commit_too(hub: Hub, revision: str) -> None:
    folder = checkpoint_folder(f"x/tiny@{revision}")
    assert folder.name == hub.repositories["x/tiny"].commit
    hub.asked.clear()
    assert checkpoint_folder(f"x/tiny@{revision}") == folder and not hub.asked
    assert "has no revision 'v9'" in fault(ConfigError, "x/tiny@v9")


def test_offline_never_asks(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not in the cache" in fault(EnvironmentUnfitError)
    assert not hub.asked
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with click.Context(click.Command("any")) as context:
        context.params["dry_run"] = True
        assert "--dry-run downloads nothing" in fault(EnvironmentUnfitError)
        assert f"at most {len(TAKEN) + 1} files" in fault(EnvironmentUnfitError)
        assert "x/none" in fault(ConfigError, "x/none")
        hub.status = 503
        assert "does not list here" in fault(EnvironmentUnfitError)
        hub.status = None
    assert not hub.fetched() and not hub_cache().exists()
    folder = checkpoint_folder("x/tiny")
    hub.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    assert checkpoint_folder("x/tiny") == folder and not hub.asked


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "config.json", "model.safetensors.index.json", "model-2.safetensors"]
)
def test_a_partial_snapshot_is_completed_or_refused(
    hub: Hub, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever may be missing after a cut: what comes before the weights, or some of them."""
    folder = checkpoint_folder("x/tiny")
    order = hub.fetched()
    for late in order[order.index(name) :]:
        (folder / late).resolve().unlink()
        (folder / late).unlink()
    hub.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not whole in the cache" in fault(EnvironmentUnfitError)
    assert not hub.asked
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert names(checkpoint_folder("x/tiny")) == TAKEN
    assert hub.fetched() == order[order.index(name) :]


def test_a_cut_connection_goes_on_where_it_was(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    hub.repositories["x/tiny"].cut["model-1.safetensors"] = 100_000
    folder = checkpoint_folder("x/tiny")
    assert (folder / "model-1.safetensors").read_bytes() == SHARDED["model-1.safetensors"]
    ranges = [asked for _, path, asked, _ in hub.asked if path.endswith("model-1.safetensors")]
    (begin,) = {int(asked.removeprefix("bytes=").rstrip("-")) for asked in ranges if asked}
    assert 0 < begin <= 100_000


def test_the_bar_ends_at_what_was_written(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP, and over the client's own protocol, which tells bytes twice."""
    bars: list[tuple[int, list[int]]] = []

    @contextmanager
    def recorded(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
        bars.append((total, []))
        yield bars[-1][1].append

    monkeypatch.setattr(download, "byte_progress", recorded)
    checkpoint_folder("x/tiny")
    assert [total for total, _ in bars] == [sum(done) for _, done in bars]
    assert sum(total for total, _ in bars) == sum(len(SHARDED[name]) for name in TAKEN)

    done: list[int] = []
    bar = download._bar(done.append)
    with XetDownloadProgressReporter(
        reconstruction_desc="", total=100, log_level=40, tqdm_class=bar
    ) as told:
        for written, received in ((0, 30), (60, 40), (100, 50)):
            told.update_progress(
                SimpleNamespace(
                    total_bytes_completed=written,
                    total_transfer_bytes_completed=received,
                    total_bytes_completion_rate=1.0,
                    total_transfer_bytes_completion_rate=1.0,
                    total_bytes=100,
                )
            )
    assert sum(done) == 100


def test_a_download_that_ended_goes_on_with_the_next_file(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = huggingface_hub.HfApi.hf_hub_download

    def until_the_second(self: object, repository: str, name: str, **more: object) -> str:
        if name == "model-2.safetensors":
            raise KeyboardInterrupt
        return str(real(self, repository, name, **more))

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.HfApi, "hf_hub_download", until_the_second)
        with pytest.raises(KeyboardInterrupt):
            checkpoint_folder("x/tiny")
    hub.asked.clear()
    assert names(checkpoint_folder("x/tiny")) == TAKEN
    assert hub.fetched() == ["model-2.safetensors"]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Part.CONFIG, {"config.json"}),
        (Part.TOKENIZER, {name for name in TAKEN if not name.startswith("model")}),
    ],
)
def test_a_part_is_enough_where_no_weights_are_read(
    hub: Hub, part: Part, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint_folder("x/tiny", part)
    assert names(folder) == expected
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert checkpoint_folder("x/tiny", part) == folder
    assert "not whole" in fault(EnvironmentUnfitError)


def test_a_gated_repository_takes_a_token_which_nobody_else_sees(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["x/tiny"].is_gated = True
    message = fault(EnvironmentUnfitError)
    assert "gated" in message and "HF_TOKEN" in message
    monkeypatch.setenv("HF_TOKEN", "hf_wrong_token")
    assert "hf_wrong_token" not in fault(EnvironmentUnfitError)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    with token_held():
        assert "HF_TOKEN" not in os.environ
        assert names(checkpoint_folder("x/tiny")) == TAKEN
        assert "HF_TOKEN" not in os.environ
    assert os.environ["HF_TOKEN"] == hub.token


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_an_ill_hub_is_one_line(hub: Hub, status: int) -> None:
    hub.status = status
    assert "x/tiny" in fault(NemotrtError)


def test_what_is_not_there_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    message = fault(ConfigError, "x/unknown")
    assert "no folder here and no repository" in message
    monkeypatch.setenv("HF_ENDPOINT", "http://user:secret@127.0.0.1:9")
    message = fault(EnvironmentUnfitError)
    assert "does not answer" in message and "secret" not in message


@pytest.mark.parametrize(
    "address",
    ["garbage", "hub.example.org", "ftp://hub", "http://", "https://h:port", "https://h:99999",
     "https://h ub", "https://[::1", "https://h/\n", "https://h?token=x", "http://user:secret@"],
)  # fmt: skip
def test_a_hub_without_an_address_is_refused(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    message = fault(ConfigError)
    assert "HF_ENDPOINT" in message and "is no address of a hub" in message
    assert "secret" not in message and hub.fetched() == []


def test_room_is_looked_for_before(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")._replace(free=400_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "needs 0.61 MB more" in fault(EnvironmentUnfitError)
    assert "has 0.40 MB free" in fault(EnvironmentUnfitError)
    assert not [name for name in hub.fetched() if name.endswith(".safetensors")]


@pytest.mark.parametrize(
    "evil", ["../escape.safetensors", "/etc/cron.d/x", "a/../../b", "..", "a\\..\\b", "./c", ""]
)
def test_a_name_that_leads_out_is_refused(hub: Hub, evil: str, tmp_path: Path) -> None:
    hub.repositories["x/tiny"].listed = (evil,)
    assert "lies outside" in fault(ArtefactError)
    assert not hub.fetched()


@pytest.mark.parametrize("evil", ["../model.safetensors", "/etc/passwd", "..", "a/b.safetensors"])
def test_an_index_that_leads_out_is_refused(hub: Hub, evil: str) -> None:
    told = json.dumps({"weight_map": {"a": evil}}).encode()
    hub.repositories["x/tiny"].files["model.safetensors.index.json"] = told
    assert "not a plain file name" in fault(ArtefactError)


def test_an_index_that_names_what_is_not_there_is_refused(hub: Hub) -> None:
    del hub.repositories["x/tiny"].files["model-2.safetensors"]
    assert "its index names model-2.safetensors" in fault(ArtefactError)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Repo-Commit", "f" * 40),
        ("X-Repo-Commit", "../../../../evil"),
        ("ETag", '"../../../../evil"'),
        ("X-Linked-ETag", "../evil"),
        ("ETag", '"a/../../b"'),
        ("ETag", ".."),
    ],
)
def test_headers_of_which_the_client_makes_paths_are_checked(
    hub: Hub, header: str, value: str, tmp_path: Path
) -> None:
    hub.repositories["x/tiny"].headers = {header: value}
    assert "a plain name" in fault(ArtefactError)
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert not hub.fetched() and written <= {"CACHEDIR.TAG"}
    hub.repositories["x/tiny"].headers = {}
    assert names(checkpoint_folder("x/tiny")) == TAKEN


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, "no safetensors: its weights are pyto"),
        ({"config.json": b"{}"}, "it has no weights"),
        ({"model.gguf": b"x"}, "no config.json"),
    ],
)
def test_what_is_no_safetensors_checkpoint_is_refused(
    hub: Hub, files: dict[str, bytes], said: str
) -> None:
    hub.repositories["x/tiny"].files = files
    assert said in fault(ConfigError)
    assert not hub.fetched()


def test_a_path_that_exists_wins(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "x/tiny").mkdir(parents=True)
    assert checkpoint_folder("x/tiny") == Path("x/tiny")
    assert meaning("x/tiny@v1", Part.WEIGHTS) == HubId("x/tiny", "v1")
    assert checkpoint_folder("tiny") == TINY_MODELS["tiny"]
    assert not hub.asked
    for name in (
        "./y/tiny",
        "../y/tiny",
        "/y/tiny",
        "a/b/c",
        "y",
        "y/",
        "~/y",
        "y/z w",
        "",
        "y/z@",
    ):
        fault(ConfigError, name)
    assert not hub.asked


def test_a_folder_of_a_cache_is_understood(hub: Hub, tmp_path: Path) -> None:
    whole = checkpoint_folder("x/tiny")
    folder = whole.parent.parent
    assert checkpoint_folder(str(folder)) == whole
    assert checkpoint_folder(f"{folder}@{whole.name}") == whole
    assert "holds no snapshot of revision v7" in fault(ArtefactError, f"{folder}@v7")

    other = folder / "snapshots" / ("e" * 40)
    other.mkdir()
    assert checkpoint_folder(str(folder)) == whole  # by refs/main
    (folder / "refs/main").unlink()
    message = fault(ConfigError, str(folder))
    assert "several snapshots" in message and whole.name in message and other.name in message
    message = fault(ArtefactError, f"{folder}@{other.name}")
    assert "lacks config.json" in message and f"x/tiny@{other.name}" in message
    other.rmdir()
    assert checkpoint_folder(str(folder)) == whole  # the only one
    (folder / "refs/main").write_text("../../evil")
    assert "no commit" in fault(ArtefactError, str(folder))
    assert "no commit" in fault(ArtefactError, "x/tiny")
    (tmp_path / "models--x--none/snapshots").mkdir(parents=True)
    assert "holds no snapshot" in fault(ArtefactError, str(tmp_path / "models--x--none"))


NAME = st.lists(st.sampled_from(["a", "Z9", "_", "-", ".", " ", ".git"]), max_size=4).map("".join)


@given(st.lists(NAME, min_size=1, max_size=3).map("/".join))
def test_names_of_repositories_are_the_hubs_own(name: str) -> None:
    try:
        validate_repo_id(name)
        expected = True
    except HFValidationError:
        expected = False
    assert is_repository(name) is expected
    assert not is_repository(f"é{name}")  # as the hub has it; older clients let it pass


@given(st.text("ab1./@-_~^: \\\n", max_size=10))
def test_a_revision_is_none_that_leads_out_of_a_folder(revision: str) -> None:
    try:
        found = parse_hub_id(f"x/y@{revision}")
    except ConfigError:
        return
    assert found == HubId("x/y", revision)
    folder = Path("/cache/refs")
    assert Path(os.path.normpath(folder / revision)).is_relative_to(folder) and revision
    done = subprocess.run(["git", "check-ref-format", "--allow-onelevel", revision])
    assert done.returncode == 0


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"HF_HOME": "/h"},
        {"HF_HOME": "~/h"},
        {"HF_HUB_CACHE": "/c", "HF_HOME": "/h"},
        {"XDG_CACHE_HOME": "/x"},
        {"HF_HUB_CACHE": "$HOME/c"},
        {"HUGGINGFACE_HUB_CACHE": "/old"},
    ],
)
def test_the_cache_is_where_the_client_has_it(
    told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    code = "import huggingface_hub.constants as c; print(c.HF_HUB_CACHE)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert str(hub_cache()) == done.stdout.strip()


def test_a_repository_without_a_tokenizer_is_asked_for_one(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights alone may be another library's half: without the hub nobody knows."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        del hub.repositories["x/tiny"].files[name]
    folder = checkpoint_folder("x/tiny")
    hub.asked.clear()
    assert checkpoint_folder("x/tiny") == folder
    assert len(hub.asked) == 1 and not hub.fetched()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = fault(EnvironmentUnfitError)
    assert "lacks tokenizer.json" in message and "as it is" in message
    assert checkpoint_folder(str(folder)) == folder


def test_a_record_of_an_origin_is_checked(tmp_path: Path) -> None:
    record = tmp_path / "nemotrt_quantize.json"
    assert origin_of(tmp_path) is None
    record.write_text('{"recipe": {}}')
    assert origin_of(tmp_path) is None  # an older version's
    origin = {"repository": "x/y", "revision": "a" * 40}
    record.write_text(json.dumps({"origin": origin}))
    assert str(origin_of(tmp_path)) == f"x/y@{'a' * 40}"
    for broken in ({"repository": "../y"}, {"revision": "main"}, {"more": 1}):
        record.write_text(json.dumps({"origin": origin | broken}))
        with pytest.raises(ArtefactError, match="nemotrt_quantize"):
            origin_of(tmp_path)
