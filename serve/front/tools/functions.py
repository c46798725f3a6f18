"""OpenAI's `functions` of 2023, as the tools that took their place: one call per answer."""

from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.schema.requests import ChatRequest, Tool
from nemotrt.serve.front.schema.tool_choice import FunctionName, NamedToolChoice

NAMES = {"tools": "functions", "tool_choice": "function_call"}


def offer_functions(request: ChatRequest) -> None:
    """Make tools of a chat's functions, and a choice of tools of its `function_call`.

    Raises:
        ApiError: there are tools too, or the function that must be called is none of them.
    """
    choice, functions = request.function_call, request.functions or []
    names = {function.name for function in functions}
    if isinstance(choice, FunctionName) and choice.name not in names:
        text = "function_call names no function of functions."
        raise ApiError(400, text, param="function_call")
    if not functions:
        return
    for name in ("tools", "tool_choice", "parallel_tool_calls"):
        if getattr(request, name):
            raise ApiError(400, f"{name} and functions exclude each other.", param=name)
    request.tools = [Tool(type="function", function=function) for function in functions]
    request.parallel_tool_calls = False
    request.tool_choice = (
        NamedToolChoice(type="function", function=choice)
        if isinstance(choice, FunctionName)
        else choice
    )
