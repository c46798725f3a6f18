"""What programs read of the package stays as it is: fields of HTTP, files and --json, by name.

The commands and their options are held by docs/reference/commands.md (tests/test_docs.py). A field
that is added on purpose is added to tests/surface/ by hand.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.artefact.manifest import Manifest
from nemotrt.engines.tiny.models import FOLDER
from nemotrt.profiles.runs.record.result import ProfileResult
from nemotrt.serve.front.schema.openapi import openapi_document
from nemotrt.serve.triton.repository import RepositorySpec, model_config

SURFACE = Path(__file__).parent / "surface"


def keys(value: Any, path: str = "") -> Iterator[str]:
    """The paths of a document's keys; a list is its first entry."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield from keys(child, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        yield from keys(value[0], f"{path}[]")
    else:
        yield path


def resolved(schema: Any, definitions: dict[str, Any], seen: tuple[str, ...] = ()) -> Any:
    """A JSON schema without names of classes, titles and prose."""
    if isinstance(schema, list):
        return [resolved(entry, definitions, seen) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if name in seen:
        return "..."
    if name in definitions:
        return resolved(definitions[name], definitions, (*seen, name))
    kept = {key: child for key, child in schema.items() if key not in ("title", "description")}
    if isinstance(schema.get("properties"), dict):
        kept["properties"] = schema["properties"]
    return {
        key: {k: resolved(v, definitions, seen) for k, v in child.items()}
        if key == "properties"
        else resolved(child, definitions, seen)
        for key, child in kept.items()
        if key not in ("$defs", "components")
    }


def http() -> Any:
    document = openapi_document()
    plain = {key: value for key, value in document.items() if key != "info"}
    told = resolved(plain, document["components"]["schemas"])
    paths: dict[str, str] = {}  # the first with a body: those that take the same one refer to it
    for path, operations in told["paths"].items():
        body = operations.get("post", {}).get("requestBody")
        first = paths.setdefault(json.dumps(body), path)
        if body is not None and first != path:
            operations["post"]["requestBody"] = f"as {first}"
    return told


def schema_of(model: Any) -> Any:
    schema = model.model_json_schema()
    return resolved(schema, schema.get("$defs", {}))


def json_keys(*arguments: str) -> list[str]:
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return list(keys(json.loads(result.stdout)))


def test_http_fields() -> None:
    held("http.json", http())


def test_engine_json_fields() -> None:
    held("engine.json", schema_of(Manifest))


def test_result_json_fields() -> None:
    held("result.json", schema_of(ProfileResult))


def test_triton_configuration() -> None:
    held("config.pbtxt.json", model_config(RepositorySpec("nemotron")).splitlines())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("plan.json", "plan nemotron-nano-9b-v2 --gpu a10g"),
        ("plan_baseline.json", "plan nemotron-nano-9b-v2 --gpu a10g --baseline qwen3-8b --curve"),
        ("plan_search.json", "plan nemotron-nano-9b-v2 --gpu h100 --precision any --tpot-ms 30"),
        ("plan_sessions.json", "plan nemotron-nano-9b-v2 --gpu a10g --sessions --ttft-ms 1000"),
        ("inspect_checkpoint.json", f"inspect {FOLDER}/nemotron_h"),
    ],
)
def test_keys_of_json(name: str, arguments: str) -> None:
    held(name, json_keys(*arguments.split()))


def held(name: str, found: Any) -> None:
    """Compare with the snapshot."""
    path = SURFACE / name
    assert json.loads(path.read_text()) == json.loads(json.dumps(found))


def test_engine_directory_keys(tmp_path: Path) -> None:
    arguments = [
        "build",
        str(FOLDER / "nemotron_h"),
        "--backend",
        "native",
        "-o",
        str(tmp_path / "e"),
    ]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    held("inspect_engine.json", json_keys("inspect", str(tmp_path / "e")))
    held("engine_keys.json", list(keys(json.loads((tmp_path / "e" / "engine.json").read_text()))))
