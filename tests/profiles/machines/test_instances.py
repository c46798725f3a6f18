"""Cloud instances as `--gpu`, and `nemotrt plan compare`."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nemotrt.cli import main
from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.gpu_profile import known_gpus, load_gpu
from nemotrt.profiles.hardware.instance import instances

NANO = "nemotron-nano-9b-v2"
SHORT = ("--isl", "512", "--osl", "128")


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["plan", *args])


def compared(*args: str) -> dict[str, Any]:
    result = run("compare", NANO, *SHORT, *args, "--json")
    assert result.exit_code == 0, result.output
    raw: dict[str, Any] = json.loads(result.stdout)
    return raw


@pytest.mark.parametrize(
    ("name", "gpu", "count", "ram_gib"),
    [
        ("g5.2xlarge", "a10g", 1, 32),
        ("p4d.24xlarge", "a100-40", 8, 1152),
        ("a2-highgpu-1g", "a100-40", 1, 85),
        ("g6e.xlarge", "l40s", 1, 32),
        ("Standard_NC24ads_A100_v4", "a100-80-pcie", 1, 220),
        ("standard_nc24ads_a100_v4", "a100-80-pcie", 1, 220),
    ],
)
def test_an_instance_is_its_gpu(name: str, gpu: str, count: int, ram_gib: int) -> None:
    found = load_gpu(name)
    assert found.name == gpu
    assert found.machine is not None
    assert (found.machine.num_gpus, found.machine.ram_gib) == (count, ram_gib)
    assert found.model_copy(update={"machine": None}) == load_gpu(gpu)


def test_every_instance_has_a_known_gpu_and_no_price() -> None:
    assert len(instances()) > 50
    for gpu, machine in instances().values():
        assert gpu in known_gpus()
        assert machine.usd_per_hour is None
        assert machine.vcpus and machine.ram_gib


def test_an_instance_that_is_misspelt_is_suggested() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'g5\.2xlarge'"):
        load_gpu("g5.2xlarg")


def test_a_plan_says_what_the_machine_has_room_for() -> None:
    whole = json.loads(run(NANO, "--gpu", "g5.12xlarge", *SHORT, "--json").stdout)
    alone = json.loads(run(NANO, "--gpu", "a10g", *SHORT, "--json").stdout)
    assert whole["notes"] != alone["notes"]
    assert any("4 x a10g, so 4 such engines" in note for note in whole["notes"])
    assert {**whole, "notes": None} == {**alone, "notes": None}
    result = run(NANO, "--gpu", "g5.2xlarge", "--tp-size", "2")
    assert result.exit_code == 2
    assert "g5.2xlarge has 1 GPUs" in result.stderr


def test_a_million_tokens_cost_the_hour_over_its_tokens() -> None:
    raw = compared("--gpu", "g5.2xlarge", "--gpu", "g5.12xlarge", "--price", "g5.12xlarge=5.672")
    dear, free = raw["machines"]
    assert (dear["machine"], free["machine"]) == ("g5.12xlarge", "g5.2xlarge")
    assert free["usd_per_million_tokens"] is None
    rate = dear["tokens_per_s"]
    assert dear["usd_per_million_tokens"]["best"] == pytest.approx(5.672e6 / 3600 / rate["best"])
    assert dear["num_engines"] == 4
    assert dear["sequences"] == 4 * free["sequences"]
    assert rate["best"] == pytest.approx(4 * free["tokens_per_s"]["best"])


def test_a_price_of_a_users_own_profile_counts(tmp_path: Path) -> None:
    from nemotrt.profiles.hardware.gpu_profile import profile_yaml

    own = tmp_path / "own.yaml"
    text = profile_yaml(load_gpu("l4")) + "machine: {name: mine, num_gpus: 2, usd_per_hour: 3}\n"
    own.write_text(text)
    (found,) = compared("--gpu", str(own), "--precision", "fp8")["machines"]
    rate = found["tokens_per_s"]["best"]
    assert found["usd_per_million_tokens"]["best"] == pytest.approx(3e6 / 3600 / rate)
    plan = json.loads(run(NANO, "--gpu", str(own), "--precision", "fp8", *SHORT, "--json").stdout)
    assert plan["usd_per_million_tokens"]["best"] == pytest.approx(
        found["usd_per_million_tokens"]["best"], rel=1e-6
    )


def test_the_target_bounds_each_machine() -> None:
    loose = compared("--gpu", "h100", "--precision", "any")["machines"][0]
    tight = compared("--gpu", "h100", "--precision", "any", "--tpot-ms", "8")["machines"][0]
    assert tight["tpot_ms"] <= 8 < loose["tpot_ms"]
    assert tight["sequences"] < loose["sequences"]


def test_what_cannot_run_says_why_and_the_rest_stands(tmp_path: Path) -> None:
    picture = tmp_path / "c.html"
    result = run("compare", NANO, *SHORT, "--gpu", "t4", "--gpu", "l40s", "--plot", str(picture))
    assert result.exit_code == 0, result.output
    assert "t4: " in result.stdout and "does not fit t4" in " ".join(result.stdout.split())
    page = picture.read_text()
    assert page.count("<svg") == 1
    assert "l40s" in page
    alone = run("compare", NANO, *SHORT, "--gpu", "t4")
    assert alone.exit_code == 4


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--gpu", "a10g", "--price", "h100=3"), "not among the machines"),
        (("--gpu", "a10g", "--price", "a10g=free"), "is not NAME=USD"),
        (("--gpu", "a10g", "--price", "a10g=-1"), "is not NAME=USD"),
        (("--gpu", "a10g", "--price", "3"), "is not NAME=USD"),
        ((), "Missing option '--gpu'"),
    ],
)
def test_a_wrong_option_is_refused(args: tuple[str, ...], words: str) -> None:
    result = run("compare", NANO, *args)
    assert result.exit_code == 2
    assert words in result.stderr
