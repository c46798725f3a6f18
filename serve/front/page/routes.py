"""GET / and what the chat page loads: files of this folder, known by name, and nothing else."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).parent
PREFIX = "/page"
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing inline runs, nothing comes from elsewhere, and no text becomes HTML past the sanitizer.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file as it is answered."""

    body: bytes
    headers: dict[str, str]


@cache
def page_files() -> dict[str, PageFile]:
    """Return every file that the page may load, by its path below this folder; read once."""
    paths = (path for path in FOLDER.rglob("*") if path.suffix in CONTENT_TYPES)
    return {path.relative_to(FOLDER).as_posix(): _read(path) for path in paths}


def _read(path: Path) -> PageFile:
    body = path.read_bytes()
    headers = {
        "Cache-Control": "no-cache",  # kept, but asked for each time: an upgrade shows at once
        "Content-Security-Policy": POLICY,
        "Content-Type": CONTENT_TYPES[path.suffix],
        "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return PageFile(body, headers)


async def _file(request: Request) -> Response:
    """Answer with a file, or with 304 where the browser has it."""
    found = page_files().get(request.path_params.get("name", "chat.html"))
    if found is None:
        raise HTTPException(404)
    known = request.headers.get("if-none-match", "")
    if found.headers["ETag"] in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        unchanged = {k: v for k, v in found.headers.items() if k != "Content-Type"}
        return Response(status_code=304, headers=unchanged)
    return Response(found.body, headers=found.headers)


PAGE_ROUTES = (Route("/", _file), Route(f"{PREFIX}/{{name:path}}", _file))
