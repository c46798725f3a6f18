"""A number that is added to the description of a request goes through every door by itself."""

import json
import subprocess
import sys

CODE = """
import json
from dataclasses import dataclass, fields
import nemotrt.wire.request as told

@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers(told.SamplingNumbers):
    further: float = told.number(0.5, 0, 1, help="A number that no release has.")

@dataclass(frozen=True, slots=True, kw_only=True)
class Request(told.GenerationRequest):
    further: float = told.number(0.5, 0, 1, help="The same.")

told.SamplingNumbers, told.GenerationRequest = Numbers, Request
told.NUMBERS = told.numbers_of(Numbers)
told.DEFAULTS = {item.name: item.default for item in fields(Request)}

from nemotrt.engines.backends.tensorrt_llm.sampling import NUMBERS as THEIRS
from nemotrt.engines.command import generate
from nemotrt.serve.front.openai.inputs import completion_inputs
from nemotrt.serve.front.schema.anthropic import MessagesRequest
from nemotrt.serve.front.schema.requests import ChatRequest, CompletionRequest
from nemotrt.serve.front.schema.responses import ResponsesRequest
from nemotrt.serve.requests.inputs import read_inputs
from nemotrt.serve.requests.sampling import sampling_params
from nemotrt.serve.triton.repository import RepositorySpec, model_config

body = {"model": "llm", "prompt": "x", "further": 0.25}
inputs = completion_inputs(CompletionRequest.model_validate(body), "x")
print(json.dumps({
    "command": [o.opts[0] for o in generate.params if o.name == "further"],
    "api": [
        door.model_fields["further"].default
        for door in (ChatRequest, ResponsesRequest, MessagesRequest)
    ],
    "triton": 'name: "further" data_type: TYPE_FP32' in model_config(RepositorySpec()),
    "wire": inputs["further"],
    "sampler": sampling_params(read_inputs(inputs, 100), 3, 100, 50).further,
    "tensorrt_llm": "further" in THEIRS,
}))
"""


def test_a_further_number_goes_through_every_door() -> None:
    found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == {
        "command": ["--further"],
        "api": [0.5, 0.5, 0.5],
        "triton": True,
        "wire": 0.25,
        "sampler": 0.25,
        "tensorrt_llm": True,
    }
