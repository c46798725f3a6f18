"""GET /docs: the OpenAPI document as a page that needs no script and nothing from elsewhere."""

import base64
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from html import escape
from typing import Any

from nemotrt.serve.front.schema.openapi import openapi_document

Json = dict[str, Any]
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 0.9em ui-monospace, monospace; }
pre { overflow-x: auto; padding: 0.5rem; border: 1px solid GrayText; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 0.8rem 0.2rem 0; }
th { border-bottom: 1px solid GrayText; }
summary { cursor: pointer; }
"""
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_DIGEST}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


@cache
def docs_page() -> str:
    """Return the page, made once."""
    document = openapi_document()
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            '<p>As JSON: <a href="openapi.json">openapi.json</a>. Fields that are not here are '
            "refused by name.</p>",
            *_paths(document),
            "<h2>Schemas</h2>",
            *_schemas(document),
            "</body></html>",
        ]
    )


def _paths(document: Json) -> Iterator[str]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
            body = operation.get("requestBody")
            if body is not None:
                yield f"<p>Body: {_kind(body['content']['application/json']['schema'])}</p>"
            yield "<table><tr><th>status</th><th>answer</th></tr>"
            for status, told in operation["responses"].items():
                yield f"<tr><td>{escape(status)}</td><td>{escape(told['description'])}</td></tr>"
            yield "</table>"


def _schemas(document: Json) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        yield f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3>'
        if "description" in schema:
            yield f"<p>{escape(schema['description'])}</p>"
        yield "<table><tr><th>field</th><th>type</th><th></th></tr>"
        required = schema.get("required", ())
        for field, told in schema.get("properties", {}).items():
            mark = " (required)" if field in required else ""
            yield (
                f"<tr><td><code>{escape(field)}</code>{mark}</td><td>{_kind(told)}</td>"
                f"<td>{escape(told.get('description', ''))}{_default(told)}</td></tr>"
            )
        yield "</table><details><summary>JSON schema</summary>"
        yield f"<pre>{escape(json.dumps(schema, indent=1))}</pre></details>"


def _default(told: Json) -> str:
    default = told.get("default")
    return "" if default is None else f" Default: <code>{escape(json.dumps(default))}</code>."


def _kind(schema: Json) -> str:
    """Return what a schema takes, in few words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}"><code>{name}</code></a>'
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return " or ".join(_kind(option) for option in options)
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(f"<code>{escape(json.dumps(value))}</code>" for value in values)
    if schema.get("type") == "array" and "items" in schema:
        return f"list of {_kind(schema['items'])}"
    return f"<code>{escape(str(schema.get('type', 'any')))}</code>"
