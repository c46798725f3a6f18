"""`nemotrt quantize --config`: its values, what overrides them, and what is refused."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from nemotrt.cli import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["quantize", *map(str, arguments)])


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_flags_override_the_file_and_the_record_can_be_replayed(
    checkpoint: Path, tmp_path: Path
) -> None:
    config = written(tmp_path / "c.yaml", "recipe: int8-wo\nkv-cache: fp8\nkeep: attention-feeders")
    result = run(checkpoint, "--config", config, "--recipe", "fp8-dynamic", "-o", tmp_path / "a")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "a/nemotrt_quantize.json").read_text())
    assert record["recipe"]["name"] == "fp8-dynamic" and record["kv_cache"] == "fp8"
    assert record["keep_feeders"] is True
    assert record["settings"]["recipe"] == "fp8-dynamic"
    again = written(tmp_path / "again.yaml", yaml.safe_dump(record["settings"]))
    result = run(checkpoint, "--config", again, "-o", tmp_path / "b")
    assert result.exit_code == 0, result.output
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_required_options_and_flags_may_be_in_the_file(checkpoint: Path, tmp_path: Path) -> None:
    config = written(
        tmp_path / "c.yaml", f"gpu: a10g\noutput: {tmp_path / 'out'}\nquiet: true\ndry-run: false"
    )
    result = run(checkpoint, "--config", config)
    assert result.exit_code == 0 and result.output == ""
    assert (tmp_path / "out/config.json").is_file()
    assert run(checkpoint, "--config", written(config, ""), "-o", tmp_path / "x").exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipy: fp8", "c.yaml 'recipy'; did you mean 'recipe'? Known: "),
        ("kvcache: fp8", "did you mean 'kv-cache'?"),
        ("config: c.yaml", "unknown key of"),
        ("sequences: 0", "c.yaml: sequences: 0 is not in the range x>=1"),
        ("sequences: true", "c.yaml: sequences: must be one text or number, got True"),
        ("recipe: [fp8]", "c.yaml: recipe: must be one text or number, got ['fp8']"),
        ("no-fold: 1", "c.yaml: no-fold: must be true or false, got 1"),
        ("kv-cache: fp4", "c.yaml: kv-cache: 'fp4' is not one of"),
        ("text: nowhere.txt", "c.yaml: text: File 'nowhere.txt' does not exist"),
        ("- recipe", "must be a mapping of option names"),
        ("recipe: [", "is not YAML"),
    ],
)
def test_faults_name_the_file_and_the_key(
    checkpoint: Path, tmp_path: Path, text: str, message: str
) -> None:
    config = written(tmp_path / "c.yaml", text)
    result = run(checkpoint, "--config", config, "-o", tmp_path / "out")
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert message in " ".join(result.stderr.split()), result.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_file(checkpoint: Path, tmp_path: Path) -> None:
    result = run(checkpoint, "--config", tmp_path / "no.yaml", "-o", tmp_path / "out")
    assert result.exit_code == 1 and "can't be read" in result.stderr
