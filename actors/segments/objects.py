"""Segments in a directory or bucket: one object each, under a prefix for each generation.

``file:///var/lib/natalog/segments``, ``s3://bucket/path``, ``gs://bucket/path``,
``az://account/container/path``; credentials come from the environment, as each cloud documents.
Needs the extra ``natalog[object-store]``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from natalog.actors.segments.shelf import GenerationGone, Segment
from natalog.core.errors import InvalidConfig, ServerFailed

if TYPE_CHECKING:
    from obstore.store import ObjectStore

A = TypeVar("A")
B = TypeVar("B")

IN_FLIGHT: Final = 16
"""Objects that are written or copied at a time: a bucket answers in tens of milliseconds."""
MARKER: Final = "generation"
"""An object that every generation has: directories and prefixes do not exist by themselves."""

_GENERATION: Final = re.compile(r"segments_(\d+)/")


class ObjectShelf:
    """The segments of one database under ``url/<prefix>/<database>``."""

    def __init__(self, url: str, prefix: str, database: str) -> None:
        self.kind = public(url)
        self._base = f"{prefix}/{database}"
        self._store = open_store(url)
        self._directory: Path | None = None
        parts = urlsplit(url)
        if parts.scheme == "file":
            self._directory = Path(unquote(parts.path)) / prefix / database

    def create(self, generation: int) -> None:
        import obstore

        obstore.put(self._store, self._path(generation, MARKER), b"")

    def get(self, generation: int, name: str) -> bytes | None:
        import obstore

        try:
            return bytes(obstore.get(self._store, self._path(generation, name)).bytes())
        except FileNotFoundError:
            return None

    def put_many(self, generation: int, segments: Iterable[Segment]) -> int:
        import obstore

        def put(segment: Segment) -> int:
            obstore.put(self._store, self._path(generation, segment[0]), segment[1])
            return len(segment[1])

        self._require(generation)
        size = sum(_pooled(put, segments))
        self._require(generation)
        return size

    def _require(self, generation: int) -> None:
        """`GenerationGone` unless the generation exists; writing alone would make it again."""
        if self.get(generation, MARKER) is None:
            raise GenerationGone

    def names(self, generation: int) -> set[str]:
        return set(self.sizes(generation))

    def sizes(self, generation: int) -> dict[str, int]:
        prefix = self._path(generation, "")
        found = {path[len(prefix) :]: size for path, size in self._listed(prefix)}
        found.pop(MARKER, None)
        return found

    def discard(self, generation: int, name: str) -> None:
        self._delete([self._path(generation, name)])

    def copy(self, source: int, target: int, names: Iterable[str]) -> None:
        import obstore

        def copy(name: str) -> None:
            try:
                obstore.copy(self._store, self._path(source, name), self._path(target, name))
            except FileNotFoundError:
                return

        self._require(target)
        for _ in _pooled(copy, names):
            pass
        self._require(target)

    def generations(self) -> Mapping[int, int]:
        found: dict[int, int] = {}
        begin = f"{self._base}/"
        for path, size in self._listed(begin):
            match = _GENERATION.match(path, len(begin))
            if match is not None:
                number = int(match[1])
                found[number] = found.get(number, 0) + size
        return found

    def drop(self, generation: int) -> None:
        # without its marker a generation takes no more segments
        self._delete([self._path(generation, MARKER)])
        self._delete([path for path, _ in self._listed(self._path(generation, ""))])
        if self._directory is not None:
            # what a killed process had half written is in no listing
            shutil.rmtree(self._directory / f"segments_{generation}", ignore_errors=True)

    # --- details -----------------------------------------------------------------------------

    def _path(self, generation: int, name: str) -> str:
        return f"{self._base}/segments_{generation}/{name}"

    def _listed(self, prefix: str) -> Iterator[tuple[str, int]]:
        import obstore

        for page in obstore.list(self._store, prefix=prefix.rstrip("/")):
            for item in page:
                if item["path"].startswith(prefix):
                    yield item["path"], item["size"]

    def _delete(self, paths: list[str]) -> None:
        import obstore

        if not paths:
            return
        try:
            obstore.delete(self._store, paths)
        except FileNotFoundError:
            for path in paths:  # somebody else removes them too
                try:
                    obstore.delete(self._store, path)
                except FileNotFoundError:
                    continue


def public(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))


def open_store(url: str) -> ObjectStore:
    """The object store of a URL.

    Raises `InvalidConfig` for a URL that names none, `ServerFailed` without the package obstore.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import LocalStore, from_url
    except ImportError:
        raise ServerFailed(
            f"Segments under {url} need the package obstore: install natalog[object-store]."
        ) from None
    parts = urlsplit(url)
    try:
        if parts.scheme == "file":
            return LocalStore(unquote(parts.path), mkdir=True)
        return from_url(url)
    except (BaseError, ValueError, OSError) as error:
        raise InvalidConfig(
            f"segment_store {url!r} cannot be used: {error}.", key="segment_store", value=url
        ) from error


def _pooled(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """The results of ``work``, `IN_FLIGHT` at a time, in no order; ``items`` is read as needed."""
    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="natalog-segments") as pool:
        running: set[Future[B]] = set()
        for item in items:
            running.add(pool.submit(work, item))
            if len(running) > IN_FLIGHT:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in running)
