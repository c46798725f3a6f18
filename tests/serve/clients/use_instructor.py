"""instructor in each mode that this server has, and partial objects while they stream."""

from typing import Literal

import instructor
import openai
import pydantic
from checks import KEY, MODEL, base_url, check, main

SETTINGS = {"model": MODEL, "temperature": 0, "max_tokens": 200, "max_retries": 0}
MESSAGES = [{"role": "user", "content": "A car. /no_think"}]


class Part(pydantic.BaseModel):
    kind: Literal["wheel", "door"]


class Car(pydantic.BaseModel):
    part: Part
    is_new: bool


class Loose(pydantic.BaseModel):
    """What any JSON object fits."""

    note: object = None


def client(mode: instructor.Mode) -> instructor.Instructor:
    own = openai.OpenAI(base_url=base_url(), api_key=KEY, max_retries=0)
    return instructor.from_openai(own, mode=mode)


def create(mode: instructor.Mode, kind: type = Car) -> object:
    own = client(mode)
    return own.chat.completions.create(response_model=kind, messages=MESSAGES, **SETTINGS)


@check
def tools() -> None:
    assert isinstance(create(instructor.Mode.TOOLS), Car)


@check
def tools_strict() -> None:
    assert isinstance(create(instructor.Mode.TOOLS_STRICT), Car)


@check
def json_schema() -> None:
    assert isinstance(create(instructor.Mode.JSON_SCHEMA), Car)


@check
def json_object() -> None:
    assert isinstance(create(instructor.Mode.JSON, Loose), Loose)


@check
def a_list() -> None:
    assert isinstance(create(instructor.Mode.TOOLS, list[Part]), list)


@check
def partial() -> None:
    own = client(instructor.Mode.TOOLS)
    cars = list(
        own.chat.completions.create_partial(response_model=Car, messages=MESSAGES, **SETTINGS)
    )
    assert isinstance(cars[-1].is_new, bool)


if __name__ == "__main__":
    main()
