"""What TensorRT offers by version and we leave, and the reasons that its bindings show.

docs/internals/tensorrt/compile.md says why; where a version ends a reason, a test here fails.
"""

import subprocess
import sys

import pytest
from packaging.version import Version

from support.nvidia.api import Api
from support.nvidia.tensorrt_api import VERSIONS, environment, rtx_api, tensorrt_api

LENGTHS = {"query_lengths", "key_value_lengths", "query_form", "key_value_form", "causal_kind"}
# TensorRT's own class for a plugin that is compiled ahead, asked for two shapes in turn: one of
# decode, one of prompt chunks. Then for the kernel of the first again.
ONE_KERNEL = """if True:
    import sys
    from types import SimpleNamespace
    import tensorrt_bindings as trt
    sys.modules["tensorrt"] = trt
    import tensorrt_bindings.plugin as trtp
    from tensorrt_bindings.plugin._plugin_class import _TemplateAOTPlugin

    def kernels(x, outputs, tactic):
        name = "ssd_decode" if x.shape.opt[1] == 1 else "ssd_prefill"
        return name, b"", trtp.KernelLaunchParams(), trtp.SymIntExprs(0)

    def tensor(tokens):
        found = trt.DynamicPluginTensorDesc()
        desc = trt.PluginTensorDesc()
        desc.type, desc.format = trt.DataType.FLOAT, trt.TensorFormat.LINEAR
        desc.dims = trt.Dims((-1, -1, 8))
        found.desc = desc
        found.min = found.opt = found.max = trt.Dims((1, tokens, 8))
        return found

    plugin = _TemplateAOTPlugin("SsdScan", "nemotrt", 1)
    plugin.init(None, {}, [], kernels, [], None)
    plugin.set_tactic(0)
    plugin.input_descs, plugin.output_descs = [SimpleNamespace()], [SimpleNamespace()]
    builder = SimpleNamespace(constant=lambda value: None)
    for tokens in (1, 320):
        sides = [tensor(tokens), tensor(tokens)]
        plugin.get_launch_params([], sides, 1, SimpleNamespace(), SimpleNamespace(), builder)
        print(plugin.get_kernel(*([tensor(1).desc] for _ in sides))[0])
    print("Presently, only PTX is supported." in trtp.aot_impl.__doc__)
    print(trt.PreviewFeature.ALIASED_PLUGIN_IO_10_03.__doc__)
"""


def said(version: str) -> list[str]:
    """Return what ONE_KERNEL prints with a version's binding."""
    command = [sys.executable, "-c", ONE_KERNEL]
    text = subprocess.check_output(
        command, env=environment(version), text=True, stderr=subprocess.DEVNULL
    )
    return text.splitlines()


def has_lengths(api: Api) -> bool:
    found = LENGTHS & set(api.members["IAttention"])
    assert found in (set(), LENGTHS)
    return bool(found)


def test_attention_by_lengths_and_packed_tokens_came_with_11() -> None:
    """Of all versions by then; TensorRT for RTX, whose compiler is here, has the same."""
    have = [version for version in VERSIONS if has_lengths(tensorrt_api(version))]
    assert have == [version for version in VERSIONS if Version(version) >= Version("11")]
    assert has_lengths(rtx_api())
    for api in (tensorrt_api(VERSIONS[-1]), rtx_api()):
        assert {"PADDED_BHND", "PACKED_NHD"} <= set(api.members["AttentionIOForm"])
        assert "LOWER_RIGHT" in api.members["CausalMaskKind"]


def test_tensorrt_for_rtx_takes_no_plugin_compiled_ahead() -> None:
    assert "IPluginV3QuickAOTBuild" not in rtx_api().members
    for version in VERSIONS:
        assert "IPluginV3QuickAOTBuild" in tensorrt_api(version).members


@pytest.mark.parametrize(
    "version",
    [pytest.param(v, marks=[] if v == VERSIONS[-1] else pytest.mark.slow) for v in VERSIONS],
)
def test_why_no_plugin_is_compiled_ahead(version: str) -> None:
    """Of all shapes the last one's kernel is kept; code is PTX; aliases are of other plugins."""
    is_experimental, decode, prompt, is_only_ptx, *about_aliases = said(version)
    assert is_experimental.endswith("tensorrt.plugin module is experimental.")
    assert (decode, prompt, is_only_ptx) == ("ssd_decode", "ssd_prefill", "True")
    assert "when using IPluginV3OneBuildV2" in " ".join(about_aliases)
