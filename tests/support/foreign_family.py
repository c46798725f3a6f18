"""Chat formats beside the product's own, and a short chat template of Qwen3's kind."""

from dataclasses import replace

from nemotrt.engines.model.families import (
    EFFORTS,
    FAMILIES,
    CallFormat,
    ChatFormat,
    Tags,
    XmlCall,
)

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
# Another's elements, with names of their own and without lines of their own between calls.
FOREIGN_XML = replace(
    FOREIGN,
    calls=CallFormat(
        Tags("[calls]", "[/calls]"),
        before="[calls]",
        between="\n",
        after="[/calls]",
        call=XmlCall(Tags("<run:", "</run>"), Tags("<with:", "</with>")),
    ),
)
EVERY_FAMILY = (*FAMILIES, FOREIGN, FOREIGN_XML)
FOREIGN_TEMPLATE = (
    "{{ tools }}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    '{% for c in m.tool_calls or [] %}<fn>{"name": "{{ c.function.name }}"}</fn>{% endfor %}'
    "{% endfor %}{% if add_generation_prompt %}<assistant><|reason|>\n"
    "{% if '[plain]' in messages[0].content %}<|/reason|>\n{% endif %}{% endif %}"
)
# As Nemotron 3's: elements, Python's words for what is no string and no container, an empty trace.
NEMOTRON_3_TEMPLATE = r"""
{%- set enable_thinking = enable_thinking if enable_thinking is defined else True %}
{%- if tools %}{{ "<|im_start|>system\n<tools>" }}
{%- for tool in tools %}{{ "\n<function>\n<name>" ~ tool.function.name ~ "</name>" }}
{{- "\n<parameters>" ~ (tool.function.parameters | tojson) ~ "</parameters>\n</function>" }}
{%- endfor %}
{{- "\n</tools>\nReply in this form:\n<tool_call>\n<function=example_function_name>\n" }}
{{- "<parameter=example_parameter_1>\nvalue_1\n</parameter>\n</function>\n</tool_call>" }}
{{- "<|im_end|>\n" }}{% endif %}
{%- for m in messages %}
{%- if m.role == "tool" %}
{{- "<|im_start|>user\n<tool_response>\n" ~ m.content ~ "\n</tool_response>\n" }}
{%- else %}{{ "<|im_start|>" ~ m.role ~ "\n" }}
{%- if m.role == "assistant" %}
{%- if m.reasoning_content %}{{ "<think>\n" ~ m.reasoning_content ~ "\n</think>\n" }}
{%- else %}{{ "<think></think>" }}{% endif %}{% endif %}
{{- m.content or "" }}
{%- for call in m.tool_calls or [] %}
{%- if loop.first and m.content %}{{ "\n" }}{% endif %}
{{- "<tool_call>\n<function=" ~ call.function.name ~ ">\n" }}
{%- for name, value in call.function.arguments | items %}
{{- "<parameter=" ~ name ~ ">\n" }}
{%- if value is mapping or (value is sequence and value is not string) %}
{{- value | tojson }}{% else %}{{ value | string }}{% endif %}
{{- "\n</parameter>\n" }}
{%- endfor %}{{ "</function>\n</tool_call>\n" }}
{%- endfor %}
{%- endif %}{{ "<|im_end|>\n" }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- "<|im_start|>assistant\n<think>" ~ ("\n" if enable_thinking else "</think>") }}{% endif %}"""
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
