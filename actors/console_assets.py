"""The built files of the web console, as they lie in the package."""

from __future__ import annotations

import gzip
import hashlib
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

NONCE_MARK: Final = b"NONCE"
_KINDS: Final = {
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "woff2": "font/woff2",
    "txt": "text/plain; charset=utf-8",
}


class Asset:
    """A file: its bytes, as they are and compressed, and a tag that changes with them."""

    def __init__(self, name: str, data: bytes) -> None:
        self.kind = _KINDS[name.rpartition(".")[2]]
        self.data = data
        self.compressed = gzip.compress(data, 6, mtime=0)
        self.tag = f'"{hashlib.sha256(data).hexdigest()[:24]}"'


class Assets:
    """Everything under ``natalog/console``, read once."""

    def __init__(self) -> None:
        folder = files("natalog") / "console"
        self._index = (folder / "index.html").read_bytes()
        self._assets = {
            item.name: Asset(item.name, item.read_bytes())
            for item in folder.iterdir()
            if item.is_file() and item.name.rpartition(".")[2] in _KINDS
        }

    def index(self, nonce: str) -> bytes:
        """The page."""
        return self._index.replace(NONCE_MARK, nonce.encode())

    async def asset(self, request: Request) -> Response:
        """A file of the page; the browser asks each time whether it is still the same."""
        asset = self._assets.get(request.path_params["name"])
        if asset is None:
            return PlainTextResponse("there is no such file\n", 404)
        headers = {"ETag": asset.tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if request.headers.get("if-none-match") == asset.tag:
            return Response(status_code=304, headers=headers)
        data = asset.data
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            data = asset.compressed
        return Response(data, headers={**headers, "Content-Type": asset.kind})
