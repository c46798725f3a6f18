"""A boolean is no number, and what is no number of JSON's is no body, wherever it stands."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from nemotrt.serve.front.schema.openapi import openapi_document

TURNS = [{"role": "user", "content": "Hi"}]
BODIES: dict[str, Any] = {
    "/v1/chat/completions": {"messages": TURNS},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"messages": TURNS, "max_tokens": 5},
}


def numbers(schema: Any) -> Iterator[str]:
    """Yield the fields of a body that are numbers or null, as the document has them."""
    for name, field in schema["properties"].items():
        kinds = {option.get("type") for option in (field, *field.get("anyOf", ()))}
        if kinds & {"integer", "number"} and "boolean" not in kinds:
            yield name


def fields() -> Iterator[Any]:
    document = openapi_document()
    for path in BODIES:
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        name = body["schema"]["$ref"].rpartition("/")[2]
        for field in numbers(document["components"]["schemas"][name]):
            yield pytest.param(path, field, id=f"{path} {field}")


@pytest.mark.parametrize(("path", "field"), list(fields()))
def test_a_boolean_is_no_number(client, path, field) -> None:
    for value in (True, False):
        answer = client.post(path, json={**BODIES[path], field: value})
        error = answer.json()["error"]
        told = error.get("param") or error["message"].partition(":")[0]
        assert (answer.status_code, told) == (400, field), answer.text


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "-1E+999", "9" * 400])
@pytest.mark.parametrize("path", BODIES)
def test_what_is_no_number_of_jsons_is_no_body(client, path, number) -> None:
    field = {"metadata": {"user_id": 0}} if "messages" in path else {"metadata": {"a": [0]}}
    tool = {"type": "object", "properties": {"x": {"const": 0}}}
    more = {
        "chat": {"tools": [{"type": "function", "function": {"name": "f", "parameters": tool}}]},
        "messages": {"tools": [{"name": "f", "input_schema": tool}]},
    }
    door = path.split("/")[2]
    for extra in (more.get(door, field), field if door != "messages" else more[door]):
        text = json.dumps({**BODIES[path], **extra}).replace("0}", number + "}")
        text = text.replace("[0]", f"[{number}]")
        answer = client.post_text(path, text)
        is_integer = number.isdigit()  # of any size it is one of JSON's
        assert answer.status_code == 400 or (is_integer and answer.is_success), answer.text


@pytest.mark.parametrize("text", ["NaN", "Infinity is 1e999", "9" * 400])
def test_a_text_may_say_so(client, text) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": text}]})
    assert client.post_text("/v1/chat/completions", body).status_code == 200


@pytest.mark.parametrize("ids", [[5, True], [5, "6"], [5, 5.5], [5, None]])
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/completions", "prompt"),
        ("/v1/completions", "stop_token_ids"),
        ("/v1/responses", "stop_token_ids"),
        ("/detokenize", "tokens"),
    ],
)
def test_an_id_is_an_integer_alone(client, path, field, ids) -> None:
    answer = client.post(path, json={**BODIES.get(path, {}), field: ids})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(field)
