"""The form of a backup: frames in one file, and a digest at the end.  ``docs/log_format.md``.

A backup holds the streams of a database message by message, as they are stored, so that restoring
them gives the same commits.  Writing and reading are one pass each, in bounded memory; whoever
reads hears of a file that was cut or changed before its end is believed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, NoReturn

from natalog.core.codec import pack, unpack
from natalog.core.errors import BackupCorrupt, NatalogError

MAGIC: Final = b"natalog backup 1\n"
FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
LENGTH_BYTES: Final = 4
DIGEST_BYTES: Final = 32

DATABASE: Final = 1
STREAM: Final = 2
MESSAGE: Final = 3
SECTION_END: Final = 4
END: Final = 5

Write = Callable[[bytes], object]
Read = Callable[[int], bytes]
"""Up to so many bytes, fewer only at the end."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The first frame: which database, when the backup began (ms), what wrote it."""

    database: str
    began_ms: int
    version: str


@dataclass(frozen=True, slots=True)
class Section:
    """Messages of one stream follow.

    ``name``: of the stream behind ``<prefix>=<database>=``.  ``subjects``: behind
    ``<prefix>.<database>.``.  ``config``: further settings.  A stream may have several sections;
    the last one's subjects and settings count.
    """

    name: str
    subjects: tuple[str, ...]
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One message; ``subject`` behind ``<prefix>.<database>.``, ``time_ms`` when it was stored."""

    seq: int
    subject: str
    headers: Mapping[str, str]
    time_ms: int | None
    data: bytes


@dataclass(frozen=True, slots=True)
class SectionEnd:
    """The messages of a stream up to ``last_seq`` were written, as far as there were any."""

    last_seq: int


@dataclass(frozen=True, slots=True)
class Totals:
    """The last frame."""

    streams: int
    messages: int
    bytes: int


Frame = Origin | Section | Message | SectionEnd | Totals


class BackupWriter:
    """Writes the frames of one backup; `finish` makes it whole."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._digest = sha256()
        self._names: set[str] = set()
        self._messages = 0
        self._bytes = 0
        self._put(MAGIC)

    def origin(self, origin: Origin) -> None:
        self._frame(DATABASE, origin.database, origin.began_ms, origin.version)

    def section(self, section: Section) -> None:
        self._names.add(section.name)
        self._frame(STREAM, section.name, list(section.subjects), dict(section.config))

    def message(self, message: Message) -> None:
        self._messages += 1
        self._bytes += len(message.data)
        headers = dict(message.headers) or None
        self._frame(MESSAGE, message.seq, message.subject, headers, message.time_ms, message.data)

    def end_section(self, last_seq: int) -> None:
        self._frame(SECTION_END, last_seq)

    def finish(self) -> Totals:
        """Write the totals and the digest."""
        totals = Totals(len(self._names), self._messages, self._bytes)
        self._frame(END, totals.streams, totals.messages, totals.bytes)
        self._write(self._digest.digest())
        return totals

    def _frame(self, kind: int, *fields: Any) -> None:
        body = pack([kind, *fields])
        self._put(len(body).to_bytes(LENGTH_BYTES, "big") + body)

    def _put(self, data: bytes) -> None:
        self._digest.update(data)
        self._write(data)


def read_backup(read: Read) -> Iterator[Frame]:
    """The frames of a backup; the last one, `Totals`, comes only when the digest is right.

    Raises `BackupCorrupt` for anything that is no whole and unchanged backup.
    """
    digest = sha256()

    def take(size: int) -> bytes:
        data = read(size)
        if len(data) != size:
            _corrupt("ends too early: it was cut, or writing it was")
        digest.update(data)
        return data

    if read(len(MAGIC)) != MAGIC:
        _corrupt("does not begin like one")
    digest.update(MAGIC)
    names: set[str] = set()
    messages = size = 0
    while True:
        length = int.from_bytes(take(LENGTH_BYTES), "big")
        if length > FRAME_BYTES_MAX:
            _corrupt(f"has a frame of {length} bytes")
        frame = _decoded(take(length))
        if isinstance(frame, Totals):
            break
        if isinstance(frame, Section):
            names.add(frame.name)
        elif isinstance(frame, Message):
            messages += 1
            size += len(frame.data)
        yield frame
    expected = digest.digest()
    if read(DIGEST_BYTES) != expected:
        _corrupt("is damaged: its digest is another")
    if frame != Totals(len(names), messages, size):
        _corrupt("does not hold what it says it holds")
    if read(1):
        _corrupt("goes on behind its end")
    yield frame


def _decoded(body: bytes) -> Frame:
    try:
        kind, *fields = unpack(body)
        match kind:
            case 1:
                return Origin(*fields)
            case 2:
                name, subjects, config = fields
                return Section(str(name), tuple(map(str, subjects)), dict(config))
            case 3:
                seq, subject, headers, time_ms, data = fields
                return Message(int(seq), str(subject), dict(headers or {}), time_ms, bytes(data))
            case 4:
                return SectionEnd(int(fields[0]))
            case 5:
                return Totals(*fields)
    except (NatalogError, TypeError, ValueError, IndexError) as error:
        raise BackupCorrupt(f"The backup has a frame that cannot be read: {error}") from error
    raise BackupCorrupt(f"The backup has a frame of kind {kind!r}.")


def _corrupt(what: str) -> NoReturn:
    raise BackupCorrupt(f"The backup {what}.")


__all__ = [
    "BackupWriter",
    "Frame",
    "Message",
    "Origin",
    "Section",
    "SectionEnd",
    "Totals",
    "read_backup",
]
