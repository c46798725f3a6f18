"""Source: 1.2 tensorrt_llm/plugin/plugin.py."""

from ._common import default_net


class CustomAllReduceHelper:
    def set_workspace_tensor(self, mapping, num_profiles=None, is_lowprecision=False):
        assert mapping.tp_size == default_net().group.size
        default_net().group.workspace_set = True


def current_all_reduce_helper():
    return CustomAllReduceHelper()
