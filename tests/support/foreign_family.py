"""Chat formats beside the product's own, and a short chat template of Qwen3's kind."""

from nemotrt.engines.model.families import EFFORTS, FAMILIES, CallFormat, ChatFormat, Tags

FOREIGN = ChatFormat(
    think=Tags("<|reason|>", "<|/reason|>"),
    gap="\n",
    calls=CallFormat(Tags("<fn>", "</fn>"), before="<fn>", between="</fn>\n<fn>", after="</fn>"),
    directives={True: "[think]", False: "[plain]"},
    sampling={True: {"temperature": 0.5}, False: {"temperature": 0.1}},
    roles=("<system>", "<user>", "<assistant>"),
    efforts=EFFORTS,
    answers_return=True,
)
EVERY_FAMILY = (*FAMILIES, FOREIGN)
FOREIGN_TEMPLATE = (
    "{{ tools }}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    '{% for c in m.tool_calls or [] %}<fn>{"name": "{{ c.function.name }}"}</fn>{% endfor %}'
    "{% endfor %}{% if add_generation_prompt %}<assistant><|reason|>\n"
    "{% if '[plain]' in messages[0].content %}<|/reason|>\n{% endif %}{% endif %}"
)
QWEN3_TEMPLATE = r"""
{%- if tools %}{{ "<|im_start|>system\n# Tools\n<tools>" }}
{%- for tool in tools %}{{ "\n" + (tool | tojson) }}{% endfor %}
{{- "\n</tools>\nFor each call, within <tool_call></tool_call>:\n<tool_call>\n" }}
{{- "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n" }}
{%- endif %}
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\n' + (m.content or '') }}
{%- for call in m.tool_calls or [] %}
{%- if not loop.first or m.content %}{{ '\n' }}{% endif %}
{{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- (call.function.arguments | tojson) + '}\n</tool_call>' }}
{%- endfor %}{{ '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}
{%- endif %}{% endif %}"""
