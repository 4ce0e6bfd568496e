"""Messages as they travel: what is published as bytes, headers from bytes.

nats-py walks over names and values character by character; these take a line at a time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from nats import errors

_LINE: Final = b"NATS/1.0\r\n"
_KEY: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_USUAL: Final = frozenset(
    {
        *("Content-Type", "Natalog-Basis", "Natalog-Timeout-Ms", "Nats-Msg-Id"),
        *("Nats-Expected-Last-Sequence", "Nats-Expected-Stream"),
    }
)
"""Names that need no look at their letters."""
_NEWLINES: Final = str.maketrans("\r\n", "  ")


def frame(
    subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
) -> bytes:
    """The bytes that publish a message.

    `nats.errors.BadHeaderError` for a name of a header that is none; line ends in a value become
    spaces.
    """
    if headers is None:
        return f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n"
    lines = ["NATS/1.0\r\n"]
    for key, value in headers.items():
        if key not in _USUAL and not _KEY.fullmatch(key):
            raise errors.BadHeaderError(key)
        if "\r" in value or "\n" in value:
            value = value.translate(_NEWLINES)
        lines.append(f"{key}: {value}\r\n")
    lines.append("\r\n")
    head = "".join(lines).encode()
    size = len(head) + len(payload)
    return b"".join(
        (f"HPUB {subject} {reply} {len(head)} {size}\r\n".encode(), head, payload, b"\r\n")
    )


def headers_of(block: bytes) -> dict[str, str] | None:
    """The headers of a block without a status line; None for any other block.

    A line without a colon, or with a name that is none, is left out.
    """
    if block[:10] != _LINE:
        return None
    found: dict[str, str] = {}
    for line in block[10:].decode("utf-8", "replace").split("\r\n"):
        key, colon, value = line.partition(":")
        if colon and (key in _USUAL or _KEY.fullmatch(key := key.strip())):
            found[key] = value.strip()
    return found
