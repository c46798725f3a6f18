"""GPU profiles: what ships, and what a user's own file may say."""

from pathlib import Path

import pytest

from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.gpu_profile import GPU_FOLDER, known_gpus, load_gpu


def test_shipped_profiles_are_whole() -> None:
    assert set(known_gpus()) == {
        "a10", "a100", "a100-40", "a100-40-pcie", "a100-80-pcie", "a10g", "a30", "a40",
        "b200", "gb10", "gh200", "h100", "h100-pcie", "h20", "h200", "jetson-thor", "l20", "l4",
        "l40s", "rtx-3090", "rtx-4090", "rtx-5090", "rtx-pro-6000", "t4",
    }  # fmt: skip
    for name in known_gpus():
        gpu = load_gpu(name)
        assert gpu.name == name
        assert gpu.datasheet.num_sms and gpu.datasheet.tdp_w and gpu.datasheet.l2_mib
        assert {"memory", "bandwidth", "tflops", "tdp", "interconnect"} <= set(gpu.sources)
        everything = " ".join(gpu.sources.values())
        assert "l2" in gpu.sources or "L2" in everything
        assert "sm" in gpu.sources or " SM" in everything
        has_fp8 = float(gpu.compute_capability or 0) >= 8.9
        assert ("fp8" in gpu.datasheet.tflops) == has_fp8


def test_a10g_is_not_an_a10() -> None:
    a10g, a10 = load_gpu("A10G"), load_gpu("a10")
    assert a10g.memory_bytes == 22587 * 2**20
    assert (a10g.datasheet.tflops["bf16"], a10.datasheet.tflops["bf16"]) == (70, 125)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("a100-80-sxm", "a100"),
        ("a100-40-sxm", "a100-40"),
        ("h100-sxm", "h100"),
        ("RTX4090", "rtx-4090"),
        ("dgx-spark", "gb10"),
        ("tesla-t4", "t4"),
    ],
)
def test_aliases(alias: str, name: str) -> None:
    assert load_gpu(alias).name == name


def test_unknown_name_suggests() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'a10g?'.*this-machine"):
        load_gpu("a10gg")


def test_own_file(tmp_path: Path) -> None:
    text = (GPU_FOLDER / "ampere/a10g.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("name: a10g", "name: mine"))
    assert load_gpu(str(path)).name == "mine"
    path.write_text(text.replace("num_sms:", "num_sm:"))
    with pytest.raises(ConfigError, match=r"datasheet.num_sm.*did you mean 'num_sms'"):
        load_gpu(str(path))
    path.write_text(text.replace("best: 0.85", "best: 0.5"))
    with pytest.raises(ConfigError, match="low <= best <= high"):
        load_gpu(str(path))
    path.write_text("[")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_gpu(str(path))
    path.write_text("- 1")
    with pytest.raises(ConfigError, match="must be a mapping"):
        load_gpu(str(path))
    with pytest.raises(ConfigError, match="does not exist"):
        load_gpu(str(tmp_path / "absent.yaml"))


def test_a_t4_is_planned_in_fp16_and_says_so() -> None:
    assert [name for name in known_gpus() if load_gpu(name).half == "fp16"] == ["t4"]
    capability = {name: float(load_gpu(name).compute_capability or 0) for name in known_gpus()}
    # NVIDIA's CUDA programming guide: bfloat16 from compute capability 8.0 on
    assert [name for name, number in capability.items() if number < 8] == ["t4"]


def test_a_product_name_is_one_gpus() -> None:
    names = [product for name in known_gpus() for product in load_gpu(name).product_names]
    assert len(set(names)) == len(names)
