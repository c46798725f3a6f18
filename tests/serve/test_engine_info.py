"""A server says which engine it has: a result over any door has the facts of the bare engine."""

import asyncio

import pytest

from nemotrt.engines.artefact.manifest import LimitsEntry, read_manifest
from nemotrt.profiles.load.targets.opening import open_target
from nemotrt.profiles.load.targets.options import TargetOptions
from nemotrt.profiles.load.targets.server_metrics import ServerMetrics
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.runs.measure import Observers, run
from nemotrt.profiles.runs.record.identity import differences
from nemotrt.serve.processes.launcher import serve_engine

FACTS = (
    "backend",
    "gpu",
    "precision",
    "checkpoint",
    "engine",
    "checked",
    *LimitsEntry.model_fields,
)


@pytest.fixture(scope="module")
def url(engine_folder):
    with serve_engine(engine_folder, "--no-triton", drain_s=5) as server:
        yield server.openai_url


def test_a_servers_result_has_the_engines_facts(engine_folder, url):
    """Without a word of the user's; what the user says wrongly does not count."""
    workload = Workload(isl=4, osl=4, num_requests=2, num_warmup=0)
    target = open_target(url, workload, TargetOptions(tokenizer=str(engine_folder)))
    served = run(target, workload, Observers(facts={"precision": "fp8"}))
    bare = run(open_target(str(engine_folder), workload), workload)
    assert {name: served.target[name] for name in FACTS} == {n: bare.target[n] for n in FACTS}
    assert served.target["architecture"] == bare.target["model"]
    assert served.target["model"] == "llm"
    assert any("precision is bf16 by its own word, not fp8" in note for note in served.notes)
    # the server keeps prefixes, the engine in this process does not
    assert set(differences([served, bare])) == {"model", "architecture", "kind", "prefix cache"}


def test_an_engines_digest_is_of_all_but_its_place(engine_folder):
    manifest = read_manifest(engine_folder)
    checkpoint = manifest.checkpoint.model_copy(update={"path": "/elsewhere"})
    moved = manifest.model_copy(update={"checkpoint": checkpoint})
    assert moved.facts == manifest.facts
    for change in ({"options": {"x": 1}}, {"tools": {}}, {"weights": {}}, {"files": {}}):
        if getattr(manifest, next(iter(change))) != next(iter(change.values())):
            assert manifest.model_copy(update=change).facts["engine"] != manifest.facts["engine"]


@pytest.mark.parametrize("value", ["", "many", "9" * 5000, "-1", "²"])
def test_a_server_that_tells_nonsense_of_its_engine_ends_no_run(value):
    metrics = ServerMetrics(("http://127.0.0.1:9/metrics",))

    class Page:
        url = "http://127.0.0.1:9"

        async def get(self, path):
            labels = f'model="m",max_batch_size="{value}",address="elsewhere"'
            return 200, f"nemotrt_engine_info{{{labels}}} 1.0\n".encode()

    asyncio.run(metrics._look(Page(), "/metrics"))
    assert metrics.engine["max_batch_size"] == value and metrics.engine["architecture"] == "m"
