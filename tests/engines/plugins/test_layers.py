"""The plugins as TensorRT meets them: creators, fields, types, shapes, launches.

Their base classes are the real binding's: TensorRT for RTX has the whole interface, and no network
that takes plugins.
"""

import gc
import inspect
from collections.abc import Iterator
from dataclasses import asdict, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorrt_rtx_bindings as trt

from nemotrt.engines.backends.tensorrt.device import kernel_library
from nemotrt.engines.backends.tensorrt.device.kernel_library import KernelLibrary
from nemotrt.engines.backends.tensorrt.graph.plugin_fields import CausalConvFields, SsdScanFields
from nemotrt.errors import EnvironmentUnfitError, NemotrtError
from support import plugin_stand_in
from support.plugin_stand_in import Sizes, dynamic, field

CONV = CausalConvFields("key", channels=12288, conv_kernel=4, width=22656)
SCAN = SsdScanFields("key", 128, 80, 128, 8, 22656, 40, 0.0, float(np.float32(3e38)))
SHAPES = {
    CONV: [(2, 5, 22656), (2, 3, 12288), (12288, 1, 4), (12288,), (2,)],
    SCAN: [(2, 5, 12288), (2, 5, 22656), (2, 128, 80, 128), (128,), (128,), (128,), (2,)],
}
FIELDS = pytest.mark.parametrize("fields", [CONV, SCAN], ids=lambda fields: fields.op)


@pytest.fixture(scope="module")
def layers() -> Iterator[ModuleType]:
    with plugin_stand_in.ordinary_tensorrt() as module:
        yield module


def creator_of(layers: ModuleType, fields: Any, libraries: Any = None) -> Any:
    return next(x for x in layers.creators(libraries or {}) if x.name == fields.op)


def plugin_of(layers: ModuleType, fields: Any, libraries: Any = None) -> Any:
    """Create the plugin as TensorRT does, from a collection of fields."""
    kept = [field(name, value) for name, value in asdict(fields).items()]
    given = trt.PluginFieldCollection_(trt.PluginFieldCollection([item for item, _ in kept]))
    return creator_of(layers, fields, libraries).create_plugin("n", given, trt.TensorRTPhase.BUILD)


def descriptions(plugin: Any, shapes: list[tuple[int, ...]]) -> list[Any]:
    """Return the descriptions of a plugin's inputs."""
    found = []
    for shape, kind in zip(shapes, plugin.inputs, strict=True):
        item = trt.PluginTensorDesc()
        item.dims, item.type, item.format = trt.Dims(shape), kind, trt.TensorFormat.LINEAR
        found.append(item)
    return found


@FIELDS
def test_the_creator_names_its_plugin_and_fields(layers: ModuleType, fields: Any) -> None:
    creator = creator_of(layers, fields)
    gc.collect()  # what TensorRT reads must outlive the constructor
    assert (creator.name, creator.plugin_version, creator.plugin_namespace) == (
        fields.op,
        "1",
        "nemotrt",
    )
    named = {item.name: item.type.name for item in creator.field_names}
    words = {int: "INT32", float: "FLOAT32", str: "CHAR"}
    assert named == {name: words[type(value)] for name, value in asdict(fields).items()}


@FIELDS
def test_a_plan_keeps_every_field(layers: ModuleType, fields: Any) -> None:
    plugin = plugin_of(layers, fields)
    assert plugin.fields == fields
    copied = plugin.clone()
    saved = copied.get_fields_to_serialize()
    del plugin
    gc.collect()
    restored = creator_of(layers, fields).create_plugin("n", saved, trt.TensorRTPhase.RUNTIME)
    assert restored.fields == fields
    assert (restored.plugin_name, restored.plugin_version) == (fields.op, "1")
    assert restored.num_outputs == 2
    for kind in trt.PluginCapabilityType.__members__.values():
        assert restored.get_capability_interface(kind) is restored


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": None}, "CausalConv needs the fields width"),
        ({"extra": 1}, "CausalConv has no field 'extra'; it has kernels, channels"),
        ({"channels": 2.5}, "CausalConv's field channels must be one INT32"),
    ],
)
def test_fields_that_are_not_as_they_should_be_are_named(
    change: dict[str, Any], message: str, layers: ModuleType
) -> None:
    values = {k: v for k, v in (asdict(CONV) | change).items() if v is not None}
    kept = [field(name, value) for name, value in values.items()]
    given = trt.PluginFieldCollection_(trt.PluginFieldCollection([item for item, _ in kept]))
    with pytest.raises(ValueError, match=message):
        creator_of(layers, CONV).create_plugin("n", given, trt.TensorRTPhase.BUILD)


@FIELDS
def test_one_type_a_tensor_and_no_other_order(layers: ModuleType, fields: Any) -> None:
    """Of every type and format that TensorRT has, one combination is taken."""
    plugin = plugin_of(layers, fields)
    kinds = [*plugin.inputs, *plugin.get_output_data_types(list(plugin.inputs))]
    state = SHAPES[fields][plugin.state]
    assert kinds[plugin.state] == kinds[-1]
    assert (kinds[-1] == trt.DataType.FLOAT) == (state == (2, 128, 80, 128))  # the SSM state
    for position in range(len(kinds)):
        taken = []
        for kind in trt.DataType.__members__.values():
            for order in trt.TensorFormat.__members__.values():
                whole = [trt.PluginTensorDesc() for _ in kinds]
                whole[position].type, whole[position].format = kind, order
                all_of_them = [dynamic(item) for item in whole]
                if plugin.supports_format_combination(position, all_of_them, len(plugin.inputs)):
                    taken.append((kind, order))
        assert taken == [(kinds[position], trt.TensorFormat.LINEAR)]


@FIELDS
def test_shapes_and_aliases(
    layers: ModuleType, fields: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last output has the state's shape and memory; the first a row for each token."""
    plugin = plugin_of(layers, fields)
    monkeypatch.setattr(trt, "DimsExprs", list)
    inputs = [list(shape) for shape in SHAPES[fields]]
    y, state = plugin.get_output_shapes(inputs, [], Sizes())
    assert y == [2, 5, 12288 if fields is CONV else 10240]
    assert state == inputs[plugin.state]
    assert [plugin.get_aliased_input(index) for index in range(2)] == [-1, plugin.state]


@FIELDS
def test_shapes_that_the_kernels_are_not_for_are_refused(layers: ModuleType, fields: Any) -> None:
    plugin, shapes = plugin_of(layers, fields), SHAPES[fields]
    free = [(-1, -1, *s[2:]) if i < 1 else (-1, *s[1:]) for i, s in enumerate(shapes)]
    for given in (shapes, free):
        plugin.on_shape_change(descriptions(plugin, given), [])
        plugin.configure_plugin([dynamic(x) for x in descriptions(plugin, given)], [])
    for index, shape in enumerate(shapes[:-1]):
        wrong = [*shapes[:index], (*shape[:-1], shape[-1] + 1), *shapes[index + 1 :]]
        with pytest.raises(ValueError, match=f"{fields.op}: input {index} is "):
            plugin.on_shape_change(descriptions(plugin, wrong), [])
        with pytest.raises(ValueError, match=f"{fields.op}: input {index} is "):
            plugin.configure_plugin([dynamic(x) for x in descriptions(plugin, wrong)], [])


class RecordingDriver:
    """Notes the launches."""

    def __init__(self) -> None:
        self.launches: list[tuple[Any, ...]] = []

    def cuLibraryLoadData(self, code: bytes, *rest: Any) -> tuple[int, int]:  # noqa: N802
        return 0, 1

    def cuLibraryGetKernel(self, library: int, name: bytes) -> tuple[int, Any]:  # noqa: N802
        return 0, {b"causal_conv": 1, b"ssd_decode": 2, b"ssd_prefill": 3}[name]

    def cuLaunchKernel(self, *arguments: Any) -> tuple[int]:  # noqa: N802
        self.launches.append(arguments[:9])
        return (0,)


@pytest.mark.parametrize(
    ("fields", "tokens", "launch"),
    [
        (CONV, 1, (1, 48, 1, 2, 128, 1, 1, 0, 7)),
        (CONV, 70, (1, 48, 3, 2, 128, 1, 1, 0, 7)),
        (replace(CONV, channels=385, width=777), 1, (1, 4, 1, 2, 128, 1, 1, 0, 7)),
        (SCAN, 1, (2, 128, 2, 2, 128, 1, 1, 0, 7)),
        (SCAN, 2, (3, 128, 2, 1, 160, 1, 1, 0, 7)),
        (SCAN, 512, (3, 128, 2, 1, 160, 1, 1, 0, 7)),
    ],
)
def test_the_launches_at_real_widths(
    fields: Any,
    tokens: int,
    launch: tuple[int, ...],
    layers: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kernel, grid, threads, no dynamic shared memory, the stream: by hand for the 9B."""
    driver = RecordingDriver()
    monkeypatch.setattr(kernel_library, "driver", lambda: driver)
    plugin = plugin_of(layers, fields, {"key": KernelLibrary(b"")})
    first = trt.PluginTensorDesc()
    first.dims = trt.Dims((2, tokens, 1))
    plugin.enqueue([first], [], [8] * len(plugin.inputs), [8, 8], 0, 7)
    assert driver.launches == [launch]


def test_kernels_that_nobody_registered_are_an_error(layers: ModuleType) -> None:
    plugin = plugin_of(layers, SCAN)
    first = trt.PluginTensorDesc()
    first.dims = trt.Dims((1, 1, 1))
    with pytest.raises(RuntimeError, match="kernels key are not registered"):
        plugin.enqueue([first], [], [8] * 7, [8, 8], 0, 7)


def test_a_failing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def cuLibraryLoadData(self, *arguments: Any) -> tuple[int, None]:  # noqa: N802
            return 209, None  # CUDA_ERROR_NO_BINARY_FOR_GPU

    monkeypatch.setattr(kernel_library, "driver", Failing)
    with pytest.raises(NemotrtError, match="cuLibraryLoadData failed: 209"):
        KernelLibrary(b"").launch("ssd_decode", (1, 1, 1), 32, [], 0)


def test_without_cuda_python_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_library, "MODULE", "no_such_module")
    with pytest.raises(EnvironmentUnfitError, match="pip install 'cuda-python>=13,<14'"):
        kernel_library.driver()


@FIELDS
def test_the_plugins_speak_the_interface(layers: ModuleType, fields: Any) -> None:
    """Every method that the binding lets Python override is ours, with as many parameters."""
    plugin = type(plugin_of(layers, fields))
    # "in" is no name in Python, and get_aliased_input's own documentation is of another method
    for base in (trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime, trt.IPluginV3):
        for name, method in vars(base).items():
            if name.startswith("_") or name == "destroy" or not callable(method):
                continue
            signature = method.__doc__.splitlines()[0]
            ours = inspect.signature(getattr(plugin, name)).parameters
            assert len(ours) == signature.count(": "), f"{name}: {signature}"
            assert name in vars(plugin) or name in vars(plugin.__mro__[1]), name
    assert "get_aliased_input" in vars(plugin.__mro__[1])
