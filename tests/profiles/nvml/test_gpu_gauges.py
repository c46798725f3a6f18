"""What a server's /metrics says of GPUs, by the real nvidia-ml-py on the stand-in library."""

from prometheus_client.parser import text_string_to_metric_families

from nemotrt.profiles.hardware.exporter.gpu_gauges import GpuGauges


def scraped(gauges: GpuGauges) -> dict[str, float]:
    families = text_string_to_metric_families(gauges.text())
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_every_figure_has_its_unit(nvml_script) -> None:
    gauges = GpuGauges()
    assert scraped(gauges) == {
        "nemotrt_gpu_info": 1,
        "nemotrt_gpu_power_w": 100,
        "nemotrt_gpu_sm_utilization_percent": 99,
        "nemotrt_gpu_memory_utilization_percent": 60,
        "nemotrt_gpu_memory_used_bytes": 2**30,
        "nemotrt_gpu_memory_bytes": 22587 * 2**20,
        "nemotrt_gpu_sm_clock_mhz": 1500,
        "nemotrt_gpu_temperature_c": 55,
        "nemotrt_gpu_throttle_reasons": 0,
        "nemotrt_gpu_energy_joules_total": 5,
    }
    assert scraped(gauges)["nemotrt_gpu_power_w"] == 200  # asked anew at each scrape
    assert 'gpu="0",uuid="GPU-11111111-2222-3333-4444-555555555555"' in gauges.text()


def test_a_figure_that_the_gpu_lacks_is_left_out(nvml_script) -> None:
    nvml_script(gpu0_power_mw=None)
    assert "nemotrt_gpu_power_w" not in scraped(GpuGauges())


def test_an_energy_counter_that_stands_still_is_left_out(nvml_script, monkeypatch) -> None:
    """A rate over it would say 0 W."""
    now_s = [100.0]
    monkeypatch.setattr(
        "nemotrt.profiles.hardware.exporter.gpu_gauges.time.monotonic", lambda: now_s[0]
    )
    nvml_script(gpu0_energy_mj="5000 5000 6000 6000", gpu1_energy_mj="0", gpus="2")
    gauges = GpuGauges()
    seen = []
    for _ in range(4):
        seen.append(scraped(gauges).get("nemotrt_gpu_energy_joules_total"))
        now_s[0] += 15
    assert seen == [5, None, 6, None]
    assert 'energy_joules_total{gpu="1"' not in gauges.text()  # it never counted


def test_a_lost_gpu_is_left_out(nvml_script) -> None:
    nvml_script(gpu0_power_mw="100000 !15")
    gauges = GpuGauges()
    assert "nemotrt_gpu_power_w" in scraped(gauges)
    assert scraped(gauges) == {} and gauges.text() == ""


def test_without_a_gpu_there_is_nothing(nvml_script) -> None:
    nvml_script(gpus="0")
    assert GpuGauges().text() == ""
