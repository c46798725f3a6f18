"""Structured extraction: what a text says, as JSON that fits a schema, whatever the model.

usage: pip install openai pydantic; nemotrt serve ENGINE
       python extraction.py http://127.0.0.1:9000/v1 [TEXT]
"""

import sys
from typing import Literal

import pydantic
from openai import OpenAI

TEXT = "株式会社山田製作所より、2026年4月3日付で部品120個、合計354,000円の請求書が届きました。"


class Invoice(pydantic.BaseModel):
    """What is wanted of a text; the grammar holds the model to it."""

    model_config = pydantic.ConfigDict(extra="forbid")
    company: str = pydantic.Field(max_length=40)
    date: str = pydantic.Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    currency: Literal["JPY", "USD", "EUR"]
    amount: int = pydantic.Field(ge=0, le=100_000_000)
    is_paid: bool


def extract(client: OpenAI, model: str, text: str) -> Invoice:
    """Return what a text says."""
    made = client.chat.completions.create(
        model=model,
        messages=[
            {"role": "system", "content": "Extract the invoice as JSON. /no_think"},
            {"role": "user", "content": text},
        ],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "invoice", "schema": Invoice.model_json_schema()},
        },
        temperature=0,
        max_tokens=300,
    )
    return Invoice.model_validate_json(made.choices[0].message.content or "")


def main() -> None:
    """Print what the server makes of a text."""
    address, *rest = sys.argv[1:] or sys.exit(__doc__)
    client = OpenAI(base_url=address, api_key="none")
    found = extract(client, client.models.list().data[0].id, rest[0] if rest else TEXT)
    print(found.model_dump_json(indent=2))


if __name__ == "__main__":
    main()
