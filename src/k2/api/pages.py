"""The page at / and the reference at /docs: files of this package, and nothing from elsewhere."""

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

router = APIRouter(include_in_schema=False)

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",
}
_WEB: Final = files("k2") / "web"
# Everything that lies in the page's folder is served under its own name; these have a shorter one.
_SHORT: Final = {"index.html": "/", "docs.html": "/docs"}


def _names(folder: Traversable, before: str = "") -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _names(entry, f"{before}{entry.name}/")
        else:
            yield before + entry.name


def _serve(name: str) -> None:
    kind = name.rpartition(".")[2] if "." in name else ""

    async def file(request: Request) -> Response:
        content = _WEB.joinpath(name).read_bytes()
        etag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=_MEDIA_TYPES[kind])

    router.add_api_route(_SHORT.get(name, f"/{name}"), file, methods=["GET", "HEAD"])


for _name in sorted(_names(_WEB)):
    _serve(_name)
