"""The grammar that a request implies: the form of its answer, or a tool that must be called."""

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from nemotrt.engines.model.families import CallFormat, XmlCall
from nemotrt.errors import ConfigError
from nemotrt.files.text_file import once_each
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.schema.requests import ChatRequest, Function, Sampling
from nemotrt.serve.front.schema.structured import Form
from nemotrt.serve.front.schema.tool_choice import AllowedTools, NamedToolChoice
from nemotrt.serve.front.tools.element_grammar import ElementGrammar

Inputs = dict[str, Any]
Schema = dict[str, Any]


def guide_inputs(request: Sampling) -> Inputs:
    """Return the tensors of the grammar that a request's own fields ask for, none for a free text.

    Raises:
        ApiError: two fields say something of the form, or one lacks its schema.
    """
    form = _form(request)
    if form is None:
        return {}
    if form.kind == "json_schema":
        return _guide("json_schema", _text(_schema(form), form.field))
    if form.kind == "choice":
        texts = (json.dumps(word, ensure_ascii=False) for word in form.guide)
        words = (text.replace("\x7f", r"\u007f") for text in texts)  # which Lark has in no text
        return _guide("lark", f"start: {' | '.join(words)}\n")
    return _guide(form.kind, form.guide)


def chat_guide_inputs(request: ChatRequest, calls: CallFormat) -> Inputs:
    """Return the tensors of a chat's grammar, in which tools have their part.

    A forced call leaves no content that a response format could be about. A free one is held to its
    schema where its function is `strict`; the text before it, and one without calls, is free.

    Raises:
        ApiError: as `guide_inputs`, or the chosen tool is not among the tools, or a form leaves no
            room for calls.
    """
    form = _form(request)
    grammar = partial(calls_grammar, calls, is_parallel=request.parallel_tool_calls is not False)
    functions = [tool.function for tool in request.tools or []]
    is_forced = request.tool_choice not in (None, "none", "auto")
    may_call = is_forced or (functions and request.tool_choice != "none")
    if form is None and may_call and not is_forced and any(tool.strict for tool in functions):
        return _guide("lark", grammar([_as_strict(tool) for tool in functions], may_speak=True))
    if form is None or not may_call:
        return _guide("lark", grammar(_functions(request))) if is_forced else guide_inputs(request)
    is_format = form.field.startswith("response_format")
    if form.kind != "json_schema" or (is_forced and not is_format):
        text = f"{form.field} leaves no room for tool calls; leave out tools, or send tool_choice "
        raise ApiError(400, text + "'none'.", param=form.field)
    if is_forced:
        return _guide("lark", grammar(_functions(request)))
    return _guide("lark", grammar(functions, answer=_schema(form)))


def _as_strict(function: Function) -> Function:
    """Return a function as a grammar holds a free call of it: to its schema if it is strict."""
    if function.strict:
        return function
    return function.model_copy(update={"parameters": {"type": "object"}})


def guide_field(request: Sampling) -> str | None:
    """Return the field that a request's grammar is made of; None: there is none, or there are two.

    Tools count where their calls are held to a schema.
    """
    fields = [form.field for form in request.forms]
    if isinstance(request, ChatRequest) and request.tools and request.tool_choice != "none":
        is_forced = request.tool_choice not in (None, "auto")
        tools = "functions" if request.functions else "tools"
        fields = [tools] if is_forced or not fields else []
    return fields[0] if len(fields) == 1 else None


def _form(request: Sampling) -> Form | None:
    """Return what the request says of the answer's form.

    Raises:
        ApiError: two fields say something, or one lacks its schema.
    """
    forms = request.forms
    if len(forms) > 1:
        names = " and ".join(form.field for form in forms)
        raise ApiError(400, f"{names} exclude each other; send one.", param=forms[1].field)
    form = forms[0] if forms else None
    if form is not None and form.guide is None:
        raise ApiError(400, f"{form.field} needs a schema.", param=form.field)
    return form


def calls_grammar(
    calls: CallFormat,
    functions: list[Function],
    *,
    is_parallel: bool = True,
    answer: Schema | None = None,
    may_speak: bool = False,
) -> str:
    """Return the Lark grammar of calls in the model's own format.

    Each schema is the root of its own `%json`, so that its references hold.

    Args:
        calls: the model's format.
        functions: what may be called.
        is_parallel: whether there may be more than one call.
        answer: the schema of what may be written instead of calls; none: there must be a call.
        may_speak: whether any text may stand before the calls, or in their place.
    """
    before, between, after = map(json.dumps, (calls.before, calls.between, calls.after))
    more = f" ({between} call)*" if is_parallel else ""
    start = "calls" if answer is None else "calls | answer"
    rules = [] if may_speak else [f"start: {start}", f"calls: {before} call{more} {after}"]
    if may_speak:
        rest = json.dumps(calls.before.removeprefix(calls.tags.open))
        rules += _free_text(calls.tags.open, f"{rest} call{more} {after}")
    rules += [
        "call: " + " | ".join(f"call_{i}" for i in range(len(functions))),
        *_call_rules(calls, functions),
    ]
    if answer is not None:
        rules.append("answer: %json " + _text(answer, "response_format.json_schema"))
    return "\n".join(rules) + "\n"


def _free_text(tag: str, calls: str) -> Iterator[str]:
    """Yield the rules of a text that is free up to a `tag`, behind which stand `calls`."""
    yield f"start: UNTAGGED | up_to_tag {calls}"
    yield f"up_to_tag[suffix={json.dumps(tag)}]: /(?s:.*)/"
    yield f"UNTAGGED: /(?s:.*)/ & ~/(?s:.*){re.escape(tag)}(?s:.*)/"


def _call_rules(calls: CallFormat, functions: list[Function]) -> Iterator[str]:
    """Yield the rules of each function's call.

    Raises:
        ApiError: a schema is none, or can't be kept.
    """
    elements = None
    if isinstance(calls.call, XmlCall):
        elements = ElementGrammar(calls.call, calls.tags.close)
    for i, function in enumerate(functions):
        parameters = _parameters(function)
        schema = _text(parameters, "tools")
        if elements is None:
            head = json.dumps(f'{{"name": "{function.name}", "arguments": ')
            yield f'call_{i}: {head} arguments_{i} "}}"'
            yield f"arguments_{i}: %json {schema}"
            continue
        try:
            yield from elements.rules(i, function.name, parameters)
        except ConfigError as error:
            raise ApiError(400, error.message, param="tools") from error
    if elements is not None:
        yield from elements.terminals


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


def offer_allowed(request: ChatRequest) -> None:
    """Leave those of the tools that `tool_choice` allows, and its mode.

    Raises:
        ApiError: it allows what is not among them.
    """
    choice = request.tool_choice
    if not isinstance(choice, AllowedTools):
        return
    allowed = {tool.function.name for tool in choice.allowed_tools.tools}
    tools = [tool for tool in request.tools or [] if tool.function.name in allowed]
    if unknown := allowed - {tool.function.name for tool in tools}:
        text = f"tool_choice allows {min(unknown)!r}, which is no tool of tools."
        raise ApiError(400, text, param="tool_choice")
    request.tools, request.tool_choice = tools, choice.allowed_tools.mode


def _schema(form: Form) -> Schema:
    """Return a form's schema, which may come as JSON in a text.

    Raises:
        ApiError: it is no object.
    """
    schema = form.guide
    if isinstance(schema, str):
        try:
            schema = json.loads(schema, object_pairs_hook=once_each)
        except (RecursionError, ValueError) as error:
            raise ApiError(400, f"{form.field} is not JSON: {error}.", param=form.field) from None
    if not isinstance(schema, dict):
        text = f"{form.field} must be a JSON schema, an object."
        raise ApiError(400, text, param=form.field)
    return schema


def _parameters(function: Function) -> Schema:
    """Return the schema of a function's arguments, which are an object whatever else it says.

    OpenAI's reference: a function without `parameters` takes none.
    """
    schema = function.parameters
    if schema is None:
        schema = {"type": "object", "additionalProperties": False}
    kind = schema.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        message = (
            f"the parameters of {function.name!r} must be an object's schema, not of {kind!r}."
        )
        raise ApiError(400, message, param="tools")
    return {**schema, "type": "object"}


def _text(schema: Schema, field: str) -> str:
    """Return a schema's JSON; the engine's process says what is wrong with it."""
    try:
        return json.dumps(schema)
    except (RecursionError, ValueError) as error:
        raise ApiError(400, f"{field} can't be written as JSON: {error}.", param=field) from error
