"""llama-index's openai-like model: chats and completions, whole, streamed and by asyncio."""

import asyncio

from checks import KEY, MODEL, base_url, check, main, plain, plain_chat
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

SETTINGS = {"temperature": 0, "max_tokens": 60}
HI = "Hello /no_think"
where = {"model": MODEL, "api_base": base_url(), "api_key": KEY, "max_retries": 0}
chat = OpenAILike(**where, **SETTINGS, is_chat_model=True, is_function_calling_model=True)
text = OpenAILike(**where, **SETTINGS)


@check
def a_chat_whole_and_streamed() -> None:
    expected = plain_chat(HI, **SETTINGS)
    messages = [ChatMessage(role="user", content=HI)]
    assert chat.chat(messages).message.content == expected
    assert "".join(part.delta or "" for part in chat.stream_chat(messages)) == expected


@check
def a_chat_by_asyncio() -> None:
    messages = [ChatMessage(role="user", content=HI)]
    answer = asyncio.run(chat.achat(messages))
    assert answer.message.content == plain_chat(HI, **SETTINGS)


@check
def a_completion() -> None:
    expected = plain("completions", prompt="The engine", **SETTINGS)["choices"][0]["text"]
    assert text.complete("The engine").text == expected
    assert "".join(part.delta or "" for part in text.stream_complete("The engine")) == expected


@check
def a_forced_tool() -> None:
    from llama_index.core.tools import FunctionTool

    def paint(is_red: bool) -> str:
        """Paint the car."""
        return "done"

    tool = FunctionTool.from_defaults(paint)
    answer = chat.chat_with_tools([tool], "Paint it. /no_think", tool_required=True)
    calls = chat.get_tool_calls_from_response(answer, error_on_no_tool_call=True)
    assert calls[0].tool_name == "paint" and isinstance(calls[0].tool_kwargs["is_red"], bool)


if __name__ == "__main__":
    main()
