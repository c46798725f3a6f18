"""A handful of made-up functions, and random requests that they answer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _words(text: str) -> list[str]:
    return text.split()


CITIES = {
    "en": _words(
        "Paris London Tokyo Berlin Madrid Oslo Rome Cairo Lima Delhi Boston Seattle Dublin "
        "Vienna Prague Sydney Toronto Chicago Lisbon Athens Kyoto Osaka"
    ),
    "ja": _words("東京 大阪 京都 札幌 福岡 名古屋 仙台 広島 神戸 横浜 那覇 金沢 パリ ロンドン"),
}
CURRENCIES = _words("USD EUR JPY GBP CHF CAD AUD")
PACKAGES = _words("git vim emacs gimp python3 gcc nginx bash curl apt dpkg make perl ruby")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, the call that answers it, the tool's response and the closing reply."""

    name: str
    language: str
    question: str
    arguments: dict[str, Any]
    response: str
    reply: str


def _schema(name: str, description: str, **properties: tuple[str, str]) -> dict[str, Any]:
    described = {k: {"type": t, "description": d} for k, (t, d) in properties.items()}
    parameters = {"type": "object", "properties": described, "required": list(properties)}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


SCHEMAS = {
    "calculate_tip": _schema(
        "calculate_tip",
        "Calculate the tip amount",
        bill_total=("integer", "The total amount of the bill"),
        tip_percentage=("integer", "The percentage of tip to be applied"),
    ),
    "get_weather": _schema(
        "get_weather", "Get the current weather of a city", city=("string", "Name of the city")
    ),
    "convert_currency": _schema(
        "convert_currency",
        "Convert an amount of money",
        amount=("integer", "The amount"),
        source=("string", "Currency to convert from"),
        target=("string", "Currency to convert to"),
    ),
    "multiply": _schema(
        "multiply",
        "Multiply two numbers",
        a=("integer", "First number"),
        b=("integer", "Second number"),
    ),
    "show_package": _schema(
        "show_package", "Show the version of a package", package=("string", "Name of the package")
    ),
}


def _tip(rng: random.Random, language: str) -> Call:
    bill, percent = rng.randint(10, 400), rng.choice((5, 8, 10, 12, 15, 18, 20, 25))
    tip = round(bill * percent / 100, 2)
    if language == "ja":
        question = f"会計は{bill}ドルです。{percent}%のチップはいくらですか。"
        reply = f"チップは{tip}ドルです。"
    else:
        question = rng.choice(
            (
                f"My bill is ${bill}. What will be the amount for {percent}% tip?",
                f"How much is a {percent}% tip on a bill of ${bill}?",
                f"Calculate a tip of {percent} percent for ${bill}.",
            )
        )
        reply = f"The tip is ${tip}."
    arguments = {"bill_total": bill, "tip_percentage": percent}
    return Call("calculate_tip", language, question, arguments, json.dumps({"tip": tip}), reply)


def _weather(rng: random.Random, language: str) -> Call:
    city, degrees = rng.choice(CITIES[language]), rng.randint(-5, 35)
    if language == "ja":
        question = rng.choice((f"{city}の天気を教えてください。", f"{city}の天気はどうですか。"))
        reply = f"{city}の気温は{degrees}度です。"
    else:
        question = rng.choice(
            (f"What is the weather in {city}?", f"How is the weather in {city} today?")
        )
        reply = f"It is {degrees} degrees in {city}."
    response = json.dumps({"temperature": degrees})
    return Call("get_weather", language, question, {"city": city}, response, reply)


def _currency(rng: random.Random, language: str) -> Call:
    amount, (source, target) = rng.randint(2, 900), rng.sample(CURRENCIES, 2)
    result = round(amount * rng.uniform(0.5, 2), 2)
    question = (
        f"{amount} {source} は {target} でいくらですか。"
        if language == "ja"
        else rng.choice(
            (
                f"Convert {amount} {source} to {target}.",
                f"How much is {amount} {source} in {target}?",
            )
        )
    )
    arguments = {"amount": amount, "source": source, "target": target}
    be = "は" if language == "ja" else "is"
    end = "です。" if language == "ja" else "."
    reply = f"{amount} {source} {be} {result} {target}{end}"
    response = json.dumps({"result": result})
    return Call("convert_currency", language, question, arguments, response, reply)


def _multiply(rng: random.Random, language: str) -> Call:
    a, b = rng.randint(2, 999), rng.randint(2, 999)
    question = f"{a} かける {b} は?" if language == "ja" else f"What is {a} times {b}?"
    reply = f"{a * b} です。" if language == "ja" else f"It is {a * b}."
    return Call("multiply", language, question, {"a": a, "b": b}, json.dumps(a * b), reply)


def _package(rng: random.Random, language: str) -> Call:
    name = rng.choice(PACKAGES)
    version = f"{rng.randint(0, 9)}.{rng.randint(0, 20)}"
    if language == "ja":
        question = f"{name} パッケージのバージョンを教えてください。"
        reply = f"{name} のバージョンは {version} です。"
    else:
        question = f"Which version does the package {name} have?"
        reply = f"The version of {name} is {version}."
    response = json.dumps({"version": version})
    return Call("show_package", language, question, {"package": name}, response, reply)


MAKERS: tuple[Callable[[random.Random, str], Call], ...] = (
    _tip,
    _weather,
    _currency,
    _multiply,
    _package,
)


def random_call(rng: random.Random) -> Call:
    """Returns a random request in English (two of three) or Japanese."""
    return rng.choice(MAKERS)(rng, rng.choice(("en", "en", "ja")))


def tool_schemas(rng: random.Random, needed: set[str]) -> list[dict[str, Any]]:
    """Returns the needed functions' schemas and at most one other, in random order."""
    others = [name for name in SCHEMAS if name not in needed]
    names = [*needed, *rng.sample(others, rng.randint(0, 1))] if others else list(needed)
    names.sort()
    rng.shuffle(names)
    return [SCHEMAS[name] for name in names]
