"""The page at / and the reference at /docs: files of this package, and nothing from elsewhere."""

import hashlib
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

router = APIRouter(include_in_schema=False)

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILES: Final = {
    "/": "index.html",
    "/docs": "docs.html",
    "/icon.svg": "icon.svg",
    "/style.css": "style.css",
    "/app.js": "app.js",
    "/docs.js": "docs.js",
    "/vendor/lightweight-charts.js": "vendor/lightweight-charts.js",
}
_MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}


def _serve(path: str, name: str) -> None:
    async def file(request: Request) -> Response:
        content = (files("k2") / "web" / name).read_bytes()
        etag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=_MEDIA_TYPES[name.split(".")[-1]])

    router.add_api_route(path, file, methods=["GET"])


for _path, _name in _FILES.items():
    _serve(_path, _name)
