"""The model card's own examples, as printed but for the URL, the model's name and the tokenizer.

Source: model card of NVIDIA-Nemotron-Nano-9B-v2, "Using Budget Control with a vLLM Server" and
"Using Tool-Calling with a vLLM Server", both for a server that leaves the trace in the content.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from transformers import AutoTokenizer

from nemotrt.serve.processes.launcher import serve_engine

pytestmark = pytest.mark.triton
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def base_url(engine_folder, triton_runtime) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        options = ("--engine-module", "support.scripted_host")
        with serve_engine(engine_folder, *options, "--reasoning-in-content", drain_s=5) as server:
            yield server.openai_url


class ThinkingBudgetClient:
    def __init__(self, base_url: str, api_key: str, tokenizer_name_or_path: str):
        self.base_url = base_url
        self.api_key = api_key
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer_name_or_path)
        self.client = openai.OpenAI(base_url=self.base_url, api_key=self.api_key)

    def chat_completion(
        self,
        model: str,
        messages: list[dict[str, Any]],
        max_thinking_budget: int = 512,
        max_tokens: int = 1024,
        **kwargs,
    ) -> dict[str, Any]:
        assert max_tokens > max_thinking_budget, (
            f"thinking budget must be smaller than maximum new tokens. Given {max_tokens=} and {max_thinking_budget=}"  # noqa: E501
        )
        # 1. first call chat completion to get reasoning content
        response = self.client.chat.completions.create(
            model=model, messages=messages, max_tokens=max_thinking_budget, **kwargs
        )
        content = response.choices[0].message.content
        reasoning_content = content
        if "</think>" not in reasoning_content:
            # reasoning content is too long, closed with a period (.)
            reasoning_content = f"{reasoning_content}.\n</think>\n\n"
        reasoning_tokens_len = len(
            self.tokenizer.encode(reasoning_content, add_special_tokens=False)
        )
        remaining_tokens = max_tokens - reasoning_tokens_len
        assert remaining_tokens > 0, (
            f"remaining tokens must be positive. Given {remaining_tokens=}. Increase the max_tokens or lower the max_thinking_budget."  # noqa: E501
        )
        # 2. append reasoning content to messages and call completion
        messages.append({"role": "assistant", "content": reasoning_content})
        prompt = self.tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            continue_final_message=True,
        )
        response = self.client.completions.create(
            model=model, prompt=prompt, max_tokens=max_tokens, **kwargs
        )
        response_data = {
            "reasoning_content": reasoning_content.strip().strip("</think>").strip(),
            "content": response.choices[0].text,
            "finish_reason": response.choices[0].finish_reason,
        }
        return response_data


def test_thinking_budget_client(base_url, engine_folder) -> None:
    client = ThinkingBudgetClient(
        base_url=base_url, api_key="EMPTY", tokenizer_name_or_path=str(engine_folder)
    )
    think = "Okay, the user asked, What is 2+2? Let me think. " * 4
    question = f"What is 2+2? SAY[[{think}<END>2 + 2 equals **4**.\n]]SAY"
    result = client.chat_completion(
        model="llm",
        messages=[
            {"role": "system", "content": "You are a helpful assistant. /think"},
            {"role": "user", "content": question},
        ],
        max_thinking_budget=32,
        max_tokens=512,
        temperature=0.6,
        top_p=0.95,
    )
    assert think.startswith(result["reasoning_content"].removesuffix("."))
    assert result["content"] == "2 + 2 equals **4**.\n"
    assert result["finish_reason"] == "stop"


def test_tool_calling_script(base_url, capsys) -> None:
    client = OpenAI(
        base_url=base_url,
        api_key="dummy",
    )
    said = '<TOOLCALL>[{"name": "calculate_tip", "arguments": {"bill_total": 100, "tip_percentage": 18}}]</TOOLCALL>'  # noqa: E501
    completion = client.chat.completions.create(
        model="llm",
        messages=[
            {"role": "system", "content": ""},
            {
                "role": "user",
                "content": "My bill is $100. What will be the amount for 18% tip?"
                f"SAY[[Okay, let's see.<END>{said}]]SAY",
            },
        ],
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "calculate_tip",
                    "parameters": {
                        "type": "object",
                        "properties": {
                            "bill_total": {
                                "type": "integer",
                                "description": "The total amount of the bill",
                            },
                            "tip_percentage": {
                                "type": "integer",
                                "description": "The percentage of tip to be applied",
                            },
                        },
                        "required": ["bill_total", "tip_percentage"],
                    },
                },
            },
            {
                "type": "function",
                "function": {
                    "name": "convert_currency",
                    "parameters": {
                        "type": "object",
                        "properties": {
                            "amount": {
                                "type": "integer",
                                "description": "The amount to be converted",
                            },
                            "from_currency": {
                                "type": "string",
                                "description": "The currency code to convert from",
                            },
                            "to_currency": {
                                "type": "string",
                                "description": "The currency code to convert to",
                            },
                        },
                        "required": ["from_currency", "amount", "to_currency"],
                    },
                },
            },
        ],
        temperature=0.6,
        top_p=0.95,
        max_tokens=32768,
        stream=False,
    )
    print(completion.choices[0].message.content)
    print(completion.choices[0].message.tool_calls)
    printed = capsys.readouterr().out
    assert "Okay, let's see.\n</think>" in printed or "Okay, let's see.</think>" in printed
    assert (
        """arguments='{"bill_total": 100, "tip_percentage": 18}', name='calculate_tip'""" in printed
    )
