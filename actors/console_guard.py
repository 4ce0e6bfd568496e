"""Who may talk to the console: pages of the console itself, and programs on purpose.

A page of any other site that a user has open can send requests to loopback addresses.  It must
neither read answers nor cause effects: no CORS, requests from other origins are refused, and a
host name that an attacker's name server points here (DNS rebinding) is not answered.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

Handler = Callable[[Request], Awaitable[Response]]

_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "font-src 'self'; style-src 'self' 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_NO_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
_OWN: Final = frozenset({"same-origin", "none"})
"""Values of ``Sec-Fetch-Site``: the console's own page; the user, by typing an address."""


class Guard:
    """Wraps handlers.  ``hosts``: names beside ``localhost`` by which the service is reached.

    Addresses in digits need no listing: a name server has no say in them.
    """

    def __init__(self, hosts: tuple[str, ...] = ()) -> None:
        self._hosts = {host.lower() for host in hosts}

    def page(self, index: Callable[[str], bytes]) -> Handler:
        """The page itself; ``index`` gets the nonce for style elements."""

        async def guarded(request: Request) -> Response:
            if not self._known_host(request):
                return self._misdirected(request)
            nonce = secrets.token_urlsafe(16)
            headers = {"Cache-Control": "no-store"}
            response = Response(index(nonce), headers=headers, media_type="text/html")
            return _secured(response, _POLICY.format(nonce=nonce))

        return guarded

    def asset(self, handler: Handler) -> Handler:
        """Files of the page."""

        async def guarded(request: Request) -> Response:
            if not self._known_host(request):
                return self._misdirected(request)
            return _secured(await handler(request))

        return guarded

    def api(self, handler: Handler) -> Handler:
        """Requests of the page: of its own origin only, and bodies declared as JSON."""

        async def guarded(request: Request) -> Response:
            if not self._known_host(request):
                return self._misdirected(request)
            if not _same_origin(request):
                refusal = PlainTextResponse("requests from other sites are refused\n", 403)
                return _secured(refusal)
            if request.method == "POST" and _kind(request) != "application/json":
                # forms of other sites can send everything else without asking
                return _secured(PlainTextResponse("a request is application/json\n", 415))
            response = await handler(request)
            response.headers["Cache-Control"] = "no-store"
            return _secured(response)

        return guarded

    def _known_host(self, request: Request) -> bool:
        host = _host_name(request.headers.get("host", ""))
        if host == "localhost" or host.endswith(".localhost") or host in self._hosts:
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True

    def _misdirected(self, request: Request) -> Response:
        text = "this host name is not one of the service's; natalog serve --console-host NAME\n"
        return _secured(PlainTextResponse(text, 421))


def _host_name(host: str) -> str:
    """The name in a ``Host`` header, without its port and the brackets of an IPv6 address."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _same_origin(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in _OWN:
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return True
    return urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _secured(response: Response, policy: str = _NO_POLICY) -> Response:
    for name, value in _ALWAYS.items():
        response.headers[name] = value
    response.headers["Content-Security-Policy"] = policy
    return response
