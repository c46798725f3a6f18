"""The engine with Mamba plugins on stand-ins: the plugins' own code, the kernels' own source.

Everything is ours or real but TensorRT's network and the GPU: ONNX's reference evaluator runs the
graph, our plugin classes launch on a stand-in for the driver, and the kernels run in the emulator.
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nemotrt.build.check.kernels.mamba_layer import conv_oracle, draw, scan_oracle, worst
from nemotrt.build.engine_builder import model_summary
from nemotrt.engines.artefact.manifest import CheckpointEntry, FileEntry, LimitsEntry, Manifest
from nemotrt.engines.backends.tensorrt.compile import compiler
from nemotrt.engines.backends.tensorrt.device import kernel_library
from nemotrt.engines.backends.tensorrt.device.kernel_dims import KernelDims
from nemotrt.engines.backends.tensorrt.device.kernel_image import KERNELS_FILE
from nemotrt.engines.backends.tensorrt.device.kernel_library import KernelLibrary
from nemotrt.engines.backends.tensorrt.graph import export as graph_export
from nemotrt.engines.backends.tensorrt.graph.options import MambaLayers
from nemotrt.engines.backends.tensorrt.graph.plugin_fields import CausalConvFields, SsdScanFields
from nemotrt.engines.backends.tensorrt.plugins import registration
from nemotrt.engines.backends.tensorrt.run import engine as engine_module
from nemotrt.engines.backends.tensorrt.run.engine import TensorRTEngine
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.graph.onnx_graph import GRAPH_FILE
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.errors import ArtefactError
from support import cuda_stand_in, plugin_stand_in, reference
from support.kept_steps import check_goes_on
from support.weight_inputs import weight_inputs

LIMITS = Limits(max_batch_size=3, max_seq_len=64, chunk_tokens=40)
IMAGE = b"an image"


def write_engine(source: Path, folder: Path) -> Manifest:
    """Write all of an engine directory but the plan and the kernels' machine code."""
    folder.mkdir(parents=True)
    checkpoint = open_checkpoint(source)
    bound = graph_export.export(
        checkpoint, folder, LIMITS, Precision.BF16, mamba=MambaLayers.PLUGIN
    )
    (folder / compiler.PLAN_FILE).touch()
    (folder / KERNELS_FILE).write_bytes(IMAGE)
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    assert checkpoint.config.mamba
    return Manifest(
        backend="tensorrt",
        gpu="h100",
        compute_capability="9.0",
        precision=Precision.BF16,
        executed=False,
        limits=LimitsEntry(max_batch_size=3, max_seq_len=64, chunk_tokens=40),
        model=model_summary(checkpoint.config),
        checkpoint=CheckpointEntry(path=str(source), fingerprint=checkpoint.fingerprint()),
        weights=weight_inputs(checkpoint, bound),
        tools={"tensorrt": "11.1"},
        options={"mamba": "plugin", "mamba_kernels": KernelDims.of(checkpoint.config.mamba).key},
        files={compiler.PLAN_FILE: FileEntry(num_bytes=0, sha256="0" * 64)},
    )


@pytest.fixture(scope="module")
def model() -> Any:
    return reference.nemotron_h("M-*M-")


@pytest.fixture
def opened(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[TensorRTEngine, plugin_stand_in.Driver]]:
    """An engine directory opened on the stand-ins, and the driver that its kernels run on."""
    manifest = write_engine(reference.save(model, tmp_path / "c"), tmp_path / "e")
    mamba = open_checkpoint(tmp_path / "c").config.mamba
    assert mamba
    driver = plugin_stand_in.Driver(KernelDims.of(mamba), IMAGE)
    cuda, profiles = cuda_stand_in.Cuda(), compiler.profiles(LIMITS)
    trt = plugin_stand_in.PluginTensorRT(cuda, tmp_path / "e" / GRAPH_FILE, LIMITS, profiles)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel_library, "driver", lambda: driver)
    monkeypatch.setattr(engine_module, "local_compute_capability", lambda: "9.0")
    monkeypatch.setattr(cuda_stand_in.Cuda, "CAPABILITY", (9, 0))
    monkeypatch.setattr(engine_module, "plan_module", lambda manifest: "tensorrt")
    monkeypatch.setattr(engine_module, "load_module", lambda name: trt)
    monkeypatch.setattr(engine_module, "cuda_api", lambda: cuda)
    with plugin_stand_in.ordinary_tensorrt():
        yield engine_module.open_engine(tmp_path / "e", manifest), driver


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_the_reference_logits_come_out(opened: Any, model: Any) -> None:
    """Against transformers: a prompt of two chunks, then single tokens; bfloat16 in between."""
    engine, driver = opened
    tokens = [int(t) for t in np.random.default_rng(0).integers(0, 96, 50)]
    expected = reference.logits(model, tokens)
    slot = engine.allocate()
    for start, end in ((0, 35), (35, 44), *((i, i + 1) for i in range(44, 50))):
        found = engine.step([Feed(slot, tokens[start:end])])[0]
        assert relative_error(found, expected[end - 1]) < 1e-2
    assert driver.names == ["causal_conv", "ssd_decode", "ssd_prefill"]


def test_padding_and_neighbours_change_nothing(opened: Any) -> None:
    """Three sequences of other lengths in one batch, against each alone."""
    engine, _ = opened
    prompts = [[5] * 3, list(range(20, 57)), [9, 8, 7, 6, 5, 4]]
    slots = [engine.allocate() for _ in prompts]
    together = [engine.step([Feed(s, p) for s, p in zip(slots, prompts, strict=True)])]
    together += [engine.step([Feed(slot, [7 + slot]) for slot in slots]) for _ in range(3)]
    for index, prompt in enumerate(prompts):
        engine.release(slots[index])
        slot = engine.allocate()
        assert slot == slots[index]
        alone = [engine.step([Feed(slot, prompt)])]
        alone += [engine.step([Feed(slot, [7 + slot])]) for _ in range(3)]
        for one, all_of_them in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[0], all_of_them[index], atol=2e-4, rtol=0)


def test_states_have_one_side(opened: Any) -> None:
    """Updated in place: half the memory, and one captured graph a batch size."""
    engine, _ = opened
    for is_prompt in (False, True):
        _, places = engine._states.bindings(range(1), is_prompt=is_prompt)
        states = [name for name in places if "_out_" not in name]
        assert states
        for name in states:
            kind, _, layer = name.rpartition("_")
            assert places[f"{kind}_out_{layer}"] == places[name]
    slot = engine.allocate()
    for _ in range(4):
        engine.step([Feed(slot, [3])])
    assert len(engine._cuda._api.graphs) == 1


def test_kept_states_go_on(opened: Any) -> None:
    engine, _ = opened
    check_goes_on(engine)


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [[1, 0, 1], [34, 5]])
def test_a_layer_of_the_9b_at_its_full_widths(
    lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fields, launches and kernels as they are for the real model, against the recurrence."""
    dims = KernelDims(128, 80, 128, 8, 4)
    driver = plugin_stand_in.Driver(dims, IMAGE)
    monkeypatch.setattr(kernel_library, "driver", lambda: driver)
    layer = draw(dims, lengths, max(lengths))
    conv = CausalConvFields(dims.key, dims.channels, dims.conv_kernel, dims.width)
    scan = SsdScanFields(dims.key, 128, 80, 128, 8, dims.width, dims.decode_rows, *layer.limits)
    with plugin_stand_in.ordinary_tensorrt() as layers:
        creators = layers.creators({dims.key: KernelLibrary(IMAGE)})
        values = [layer.projected, layer.window, layer.weight, layer.bias, layer.lengths]
        xbc, _ = plugin_stand_in.run_plugin(creators[0], asdict(conv), values)
        heads = [layer.dt_bias, layer.decay, layer.skip]
        values = [xbc, layer.projected, layer.state, *heads, layer.lengths]
        y, state = plugin_stand_in.run_plugin(creators[1], asdict(scan), values)
    assert (xbc == conv_oracle(layer)[0]).mean() > 0.999
    expected, after = scan_oracle(layer, xbc)
    assert worst(state, after) < 2e-5
    for i, length in enumerate(lengths):
        assert worst(y[i, : length or 1], expected[i, : length or 1]) < 2e-5


def test_engines_share_creators_and_have_their_own_kernels(model: Any, tmp_path: Path) -> None:
    manifest = write_engine(reference.save(model, tmp_path / "c"), tmp_path / "e")
    with plugin_stand_in.ordinary_tensorrt() as layers:
        registration.register_plugins(tmp_path / "e", manifest)
        registration.register_plugins(tmp_path / "e", manifest)
        registration.register(tmp_path / "e" / KERNELS_FILE, "another")
        registry = layers.trt.get_plugin_registry()
        for creator in registration.CREATORS:
            assert registry.get_creator(creator.name, "1", "nemotrt") is creator
        assert [creator.name for creator in registration.CREATORS] == ["CausalConv", "SsdScan"]
        assert list(registration.LIBRARIES) == [manifest.options["mamba_kernels"], "another"]


def test_kernels_of_another_version_are_refused(model: Any, tmp_path: Path) -> None:
    manifest = write_engine(reference.save(model, tmp_path / "c"), tmp_path / "e")
    manifest.options["mamba_kernels"] = "0" * 16
    with pytest.raises(ArtefactError, match="kernels of another version"):
        registration.register_plugins(tmp_path / "e", manifest)


def test_native_engines_register_nothing(model: Any, tmp_path: Path) -> None:
    manifest = write_engine(reference.save(model, tmp_path / "c"), tmp_path / "e")
    manifest.options["mamba"] = "native"
    registration.register_plugins(tmp_path / "nowhere", manifest)
