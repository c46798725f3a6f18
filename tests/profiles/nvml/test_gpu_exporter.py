"""`nemotrt profile gpu --serve`: what Prometheus reads, by its own parser, of the stand-in NVML."""

import socket
import threading
import urllib.error
import urllib.request

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.profiles.command import profile
from nemotrt.profiles.hardware.exporter.gpu_exporter import export, parse_address


def scrape(url):
    with urllib.request.urlopen(url, timeout=5) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        families = text_string_to_metric_families(response.read().decode())
        return {sample.name: sample.value for family in families for sample in family.samples}


def test_prometheus_reads_every_gpu_until_the_time_is_over(nvml_script):
    found, refused = [], []

    def read(url):
        found.extend(scrape(url) for _ in range(2))
        for path in ("/", "/metrics/x"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(url.replace("/metrics", path), timeout=5)
            refused.append(caught.value.code)
            caught.value.close()

    export((), ("127.0.0.1", 0), 0.3, read)
    assert [sample["nemotrt_gpu_power_w"] for sample in found] == [100, 200]  # asked anew
    assert found[0]["nemotrt_gpu_temperature_c"] == 55
    assert refused == [404, 404]


def test_scrapes_at_once_are_whole(nvml_script):
    found = []

    def read(url):
        threads = [threading.Thread(target=lambda: found.append(scrape(url))) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]

    export((), ("127.0.0.1", 0), 0.1, read)
    assert len(found) == 8 and all(len(sample) >= 8 for sample in found)


def test_a_gpu_that_is_lost_ends_it(nvml_script):
    nvml_script(gpu0_power_mw="100000 !15")
    with pytest.raises(EnvironmentUnfitError, match="no GPU answers"):
        export((), ("127.0.0.1", 0), 30.0, lambda url: [scrape(url) for _ in range(2)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9400", ("127.0.0.1", 9400)),
        ("0.0.0.0:9400", ("0.0.0.0", 9400)),
        ("[::1]:1", ("::1", 1)),
    ],
)
def test_addresses(text, expected):
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "x", "host:", "70000", "-1"])
def test_what_is_no_address(text):
    with pytest.raises(ConfigError, match="PORT or HOST:PORT"):
        parse_address(text)


def test_the_command_refuses_what_has_no_effect(nvml_script, tmp_path):
    for more in (["-o", str(tmp_path / "a.csv")], ["--gpu-rate-hz", "5"], ["--quiet"]):
        done = CliRunner().invoke(profile, ["gpu", "--serve", "0", "--duration-s", "0.1", *more])
        assert done.exit_code == 2 and "is for a recording" in done.output, more
    done = CliRunner().invoke(profile, ["gpu", "--serve", "0", "--duration-s", "0.1"])
    assert done.exit_code == 0 and "/metrics" in done.stderr
    assert list(tmp_path.glob("*.csv")) == []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(profile, ["gpu", "--serve", port, "--duration-s", "0.1"])
    assert done.exit_code == 3 and "can't listen" in done.output
    nvml_script(gpus="0")
    done = CliRunner().invoke(profile, ["gpu", "--serve", "0"])
    assert done.exit_code == 3 and "sees no GPU" in done.output
