"""The grammar that a chat request implies: its response format, or a tool that must be called."""

import json
from typing import Any

from nemotrt.serve.front.api_error import ApiError
from nemotrt.serve.front.schema import ChatRequest, Function, NamedToolChoice

Inputs = dict[str, Any]


def guide_inputs(request: ChatRequest) -> Inputs:
    """Return the tensors of the grammar, none where the answer is free.

    Raises:
        ApiError: the format lacks its schema, or the chosen tool is not among the tools.
    """
    wanted = request.response_format
    must_call = request.tool_choice not in (None, "none", "auto")
    if wanted is not None and wanted.type != "text" and must_call:
        raise ApiError(400, "response_format and a forced tool exclude each other.")
    if must_call:
        return _guide("lark", _calls_grammar(_functions(request)))
    if wanted is None or wanted.type == "text":
        return {}
    if wanted.type == "json_object":
        return _guide("json", "")
    schema = wanted.json_schema and wanted.json_schema.json_schema
    if schema is None:
        field = "response_format.json_schema"
        raise ApiError(400, f"{field} needs a schema.", param=field)
    return _guide("json_schema", json.dumps(schema))


def _guide(kind: str, guide: str) -> Inputs:
    return {"guided_decoding_guide_type": kind, "guided_decoding_guide": guide}


def _functions(request: ChatRequest) -> list[Function]:
    """Return the functions of which one must be called."""
    functions = [tool.function for tool in request.tools or []]
    if isinstance(request.tool_choice, NamedToolChoice):
        name = request.tool_choice.function.name
        functions = [function for function in functions if function.name == name]
    if not functions:
        raise ApiError(400, "tool_choice names no tool of tools.", param="tool_choice")
    return functions


def _calls_grammar(functions: list[Function]) -> str:
    """Return the Lark grammar of a list of calls in the model's own format."""
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function.name},
                "arguments": function.parameters or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for function in functions
    ]
    return (
        'start: "<TOOLCALL>[" call (", " call)* "]</TOOLCALL>"\n'
        f"call: %json {json.dumps({'anyOf': calls})}\n"
    )
