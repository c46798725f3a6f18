"""What our source asks of TensorRT is there, in every version that the extras allow."""

import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from nemotrt.engines.backends.tensorrt.graph.fitness import AHEAD_OF_TIME, PLUGIN_LEAST
from nemotrt.engines.backends.tensorrt.graph.plugin_fields import CausalConvFields, SsdScanFields
from nemotrt.needs import TENSORRT
from support.nvidia.api import Api
from support.nvidia.tensorrt_api import VERSIONS, environment, rtx_api, tensorrt_api
from support.nvidia.uses import read
from support.nvidia.wheels import cache_folder, unpacked

ROOT = Path(__file__).parents[3]
SOURCE = sorted((ROOT / "engines" / "backends" / "tensorrt").rglob("*.py"))
# What TensorRT for RTX alone has: used where it compiles ahead of time, or compiles as it runs.
RTX_ONLY = {
    "ComputeCapability",
    "DynamicShapesKernelSpecializationStrategy",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "IExecutionContext.is_stream_capturable",
    "IRuntimeConfig.create_runtime_cache",
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
    "IRuntimeConfig.set_runtime_cache",
}
# What a plugin and its creator say of themselves: a name that the base lacks would be set all the
# same, and never read.
SET = {
    "IPluginV3OneCore.plugin_name",
    "IPluginV3OneCore.plugin_namespace",
    "IPluginV3OneCore.plugin_version",
    "IPluginV3OneBuildV2.num_outputs",
    "IPluginV3OneBuildV2.timing_cache_id",
    "IPluginCreatorV3One.name",
    "IPluginCreatorV3One.plugin_namespace",
    "IPluginCreatorV3One.plugin_version",
    "IPluginCreatorV3One.field_names",
}
# pytest's own process, with a version's classes in the place of TensorRT for RTX's.
PLUGINS = """
    import sys
    import pytest
    import tensorrt_bindings

    class Registry(dict):
        def register_creator(self, creator, namespace):
            self[creator.name] = creator
            return True

        def deregister_creator(self, creator):
            return self.pop(creator.name) is creator

    known = Registry()
    tensorrt_bindings.get_plugin_registry = lambda: known  # the library's own is not there
    sys.modules["tensorrt_rtx_bindings"] = tensorrt_bindings
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


def bounds(name: str) -> dict[str, Requirement]:
    """Return the requirements of an extra, by package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = map(Requirement, project["optional-dependencies"][name])
    return {requirement.name: requirement for requirement in found}


def test_the_bounds_are_the_versions_that_are_read() -> None:
    """None below the first, no major above the last: what nobody read is not installed."""
    specifier = bounds("tensorrt")["tensorrt"].specifier
    versions = sorted(map(Version, VERSIONS))
    assert all(version in specifier for version in versions)
    first, last = versions[0], versions[-1]
    assert f"{first.major}.{first.minor - 1}.99" not in specifier
    assert str(last.major + 1) not in specifier
    assert f"{first.major}.{first.minor}" == TENSORRT.least


@pytest.mark.slow  # it asks the index
def test_no_version_within_the_bounds_is_unread() -> None:
    command = [sys.executable, "-m", "pip", "index", "versions", "tensorrt-cu13-bindings"]
    text = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL)
    listed = re.search(r"Available versions: (.*)", text)
    assert listed is not None
    specifier = bounds("tensorrt")["tensorrt"].specifier
    assert {v for v in listed[1].split(", ") if v in specifier} == set(VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
def test_ordinary_tensorrt_has_what_we_use(version: str) -> None:
    """All but what TensorRT for RTX alone has; that list is exact, too."""
    found = read(SOURCE, tensorrt_api(version))
    absent = {re.sub(r"^\S+: no ", "", fault) for fault in found.faults}
    assert absent == RTX_ONLY
    assert len(found.used) > 150  # what is followed: compiler, runtime, plugins
    for fields in (CausalConvFields, SsdScanFields):
        assert set(fields.kinds().values()) <= set(found.api.members["PluginFieldType"])
    assert found.used >= SET


def test_tensorrt_for_rtx_has_what_we_use() -> None:
    found = read(SOURCE, rtx_api())
    assert found.faults == set()
    assert set(AHEAD_OF_TIME.values()) <= set(found.api.members["ComputeCapability"])


@pytest.mark.parametrize(
    "version",
    [
        pytest.param(v, marks=[] if v == VERSIONS[-1] else pytest.mark.slow)
        for v in VERSIONS
        if Version(v) >= Version(PLUGIN_LEAST)
    ],
)
def test_the_plugins_are_made_of_a_version_s_classes(version: str) -> None:
    """Creators, fields, descriptions, shapes, launches: with the real classes of each version."""
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(PLUGINS),
        "tests/engines/plugins/test_layers.py",
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(version), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert re.search(r"^\d\d passed", done.stdout, re.MULTILINE)


def test_why_a_plugin_needs_more_than_the_first_version() -> None:
    """10.15's binding repeats a field's first element under NumPy 2; the next one reads it all."""
    code = """if True:
        import numpy, tensorrt_bindings as trt
        data = numpy.frombuffer(b"key", numpy.int8)
        print(trt.PluginField("kernels", data, trt.PluginFieldType.CHAR).data.tobytes().decode())
    """
    seen = {
        version: subprocess.check_output(
            [sys.executable, "-c", code], env=environment(version), text=True
        ).strip()
        for version in (VERSIONS[0], VERSIONS[1])
    }
    assert seen == {VERSIONS[0]: "kkk", VERSIONS[1]: "key"}
    assert VERSIONS[1].startswith(f"{PLUGIN_LEAST}.")


# The checker itself: a fault of each kind is found.


def faults(text: str, folder: Path, api: Api | None = None) -> set[str]:
    file = folder / "code.py"
    file.write_text(textwrap.dedent(text))
    found = read([file], api or tensorrt_api(VERSIONS[-1])).faults
    return {fault.partition(": ")[2] for fault in found}


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("trt.NoSuchClass()", "no NoSuchClass"),
        ("trt.DataType.INT3", "no DataType.INT3"),
        ("trt.Builder(log).create_networks()", "no Builder.create_networks"),
        ("trt.Builder()", "Builder(): needs logger"),
        ("trt.Builder(log).create_network(flag=1)", "has no flag, but flags"),
        ("trt.Builder(log).create_network(1, 2)", "takes 1 arguments, not 2"),
        ("trt.OnnxParser(trt.Builder(log), log)", "network is INetworkDefinition, not Builder"),
        ("trt.Builder(log).create_network().num_inputs = 3", "num_inputs can't be set"),
        ("config.set_timing_cache()", ".set_timing_cache of something whose type is not told"),
        ("getattr(trt.ComputeCapability, 'SM80')", "no ComputeCapability"),
        ("[trt.Builder(log) for _ in (1,)][0].fly()", "no Builder.fly"),
        ("helper(trt.Builder(log))", "no Builder.gone"),
        ("Thing(trt, trt.Builder(log)).go()", "no Builder.lost"),
    ],
)
def test_the_checker_finds(code: str, fault: str, tmp_path: Path) -> None:
    around = """
        def main(trt, log):
            {code}

        def helper(builder):
            builder.gone()

        class Thing:
            def __init__(self, trt, builder):
                self._trt, self._builder = trt, builder

            def go(self):
                self._builder.lost()

        class Logger(trt.ILogger):
            def log(self, severity, message):
                pass
    """
    found = faults(around.format(code=code), tmp_path)
    assert len(found) == 1 and fault in found.pop()


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("def log(self, severity): pass", "ILogger.log is given ['severity', 'msg']"),
        ("def log(self, severity, msg, more): pass", "ILogger.log is given"),
    ],
)
def test_the_checker_finds_wrong_overrides(body: str, fault: str, tmp_path: Path) -> None:
    found = faults(f"class Log(trt.ILogger):\n    {body}\n", tmp_path)
    assert len(found) == 1 and fault in found.pop()


def test_every_use_counts() -> None:
    """Take away a member that is used, and there is a fault."""
    overridden = {"ILogger.log", "IProgressMonitor.phase_start"}  # a method of ours, then
    used = sorted(
        name
        for name in read(SOURCE, rtx_api()).used - SET - overridden
        if not name.endswith(("?", "]", ")")) and not name.startswith("IPlugin")
    )
    for name in used[:: len(used) // 6]:
        api = Api.__new__(Api)
        api.bases = dict(rtx_api().bases)
        api.members = {kind: dict(members) for kind, members in rtx_api().members.items()}
        kind, _, member = name.rpartition(".")
        api.members[kind].pop(member)
        assert read(SOURCE, api).faults, name


def test_a_wheel_that_can_not_be_had_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line says what to do; nothing is skipped, and nothing half fetched is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for _ in range(2):
        with pytest.raises(AssertionError, match="give this machine a package index once"):
            unpacked("tensorrt-cu13-bindings", "0.0.0")
    assert [path.suffix for path in cache_folder().iterdir()] == [".lock"]
