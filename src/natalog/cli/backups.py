"""``natalog backup`` and ``natalog restore``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from natalog.cli.connection import ContextOption, NatsOption, located, run, usage_error
from natalog.cli.output import EdnOption, JsonOption, Output, make_console
from natalog.cli.progress import progress_bar
from natalog.cli.read import DatabaseArgument
from natalog.core.backup import Frame, Totals, read_backup
from natalog.core.errors import BackupCorrupt, StorageError

if TYPE_CHECKING:
    from natalog.actors.names import Names
    from natalog.actors.nats_port import NatsPort

_READ_BYTES = 1 << 20


def backup(
    database: DatabaseArgument,
    target: Annotated[
        Path, typer.Argument(metavar="FILE|DIR|-", help="A file, a directory, or - for stdout.")
    ],
    nats: NatsOption = None,
    context: ContextOption = None,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Write a database, all branches with their past, into one file while the service goes on.

    The file is verified while it is written and carries a digest.  It holds what was erased before
    it was written no more; what is erased later stays in it.

    Examples:

    natalog backup people people.natalog

    natalog backup people - | zstd > people.natalog.zst
    """
    out = Output(json, edn)
    to_pipe = str(target) == "-"
    if to_pipe and out.for_people:
        out.console = make_console(stderr=True)
    if target.is_dir():
        target = target / f"{database}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.natalog"

    async def work() -> Totals:
        from natalog.actors.backup import Backup

        async with _connected(nats, context) as (port, names):
            with (
                _written(None if to_pipe else target) as file,
                progress_bar("backup", of_bytes=True) as bar,
            ):
                return await Backup(port, names, database, file.write, bar.advance).run()

    totals = run(work())
    if out.for_people:
        where = "stdout" if to_pipe else str(target)
        out.note(
            f"{totals.messages} messages of {totals.streams} streams, "
            f"{totals.bytes} bytes, in {where}"
        )
    elif not to_pipe:
        out.fields({"file": str(target), **_fields(totals)})


def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE|-", help="A backup; - for stdin.")],
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Name of the database to make.")
    ] = None,
    replicas: Annotated[
        int, typer.Option("--replicas", min=1, help="Copies of each stream, on a cluster.")
    ] = 1,
    again: Annotated[
        bool, typer.Option("--again", help="First remove what a restore left that was cut short.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only verify the backup; restore nothing.")
    ] = False,
    nats: NatsOption = None,
    context: ContextOption = None,
    json: JsonOption = False,
    edn: EdnOption = False,
) -> None:
    """Make a database from a backup, with the same commits, under its name or another.

    A file is verified from its beginning to its end before anything is made; what comes through a
    pipe while it is read, and nothing is left when it turns out to be damaged.

    Examples:

    natalog restore people.natalog --as people-of-yesterday

    natalog restore people.natalog --check
    """
    out = Output(json, edn)
    from_pipe = str(source) == "-"
    if not from_pipe and not source.is_file():
        usage_error(f"there is no file {source}")

    async def work() -> dict[str, Any]:
        if not from_pipe:
            with source.open("rb") as file, progress_bar("verify", of_bytes=True) as bar:
                bar.start(source.stat().st_size)
                found = _verified(file, bar.advance)
            if check:
                return found
        from natalog.actors.restore import Restore

        async with _connected(nats, context) as (port, names):
            port.replicated = replicas > 1
            made = Restore(port, names, replicas=replicas, clock=_now_ms)
            with (
                sys.stdin.buffer if from_pipe else source.open("rb") as file,
                progress_bar("restore", of_bytes=True) as bar,
            ):
                if not from_pipe:
                    bar.start(source.stat().st_size)
                done = await made.run(_frames(file, bar.advance), name, again=again)
        return {
            "database": done.database,
            "branches": done.branches,
            "began": datetime.fromtimestamp(done.origin.began_ms / 1000, UTC),
            **_fields(done.totals),
        }

    found = run(_verify_pipe() if check and from_pipe else work())
    if not out.for_people:
        out.fields(found)
    elif check:
        out.note(f"a whole backup of {found['database']}: {found['messages']} messages")
    else:
        out.note(f"restored {found['database']}: {', '.join(found['branches'])}")


async def _verify_pipe() -> dict[str, Any]:
    with progress_bar("verify", of_bytes=True) as bar:
        return _verified(sys.stdin.buffer, bar.advance)


def _verified(file: BinaryIO, progress: Callable[[int], None]) -> dict[str, Any]:
    from natalog.core.backup import Origin

    found: dict[str, Any] = {}
    for frame in _frames(file, progress):
        match frame:
            case Origin():
                found["database"] = frame.database
                found["began"] = datetime.fromtimestamp(frame.began_ms / 1000, UTC)
            case Totals():
                return {**found, **_fields(frame)}
    raise BackupCorrupt("The backup has no end.")


def _frames(file: BinaryIO, progress: Callable[[int], None]) -> Iterator[Frame]:
    def read(size: int) -> bytes:
        # a pipe gives what it has, which may be less
        parts = []
        while size > 0 and (part := file.read(min(size, _READ_BYTES))):
            parts.append(part)
            size -= len(part)
            progress(len(part))
        return b"".join(parts)

    return read_backup(read)


def _fields(totals: Totals) -> dict[str, int]:
    return {"streams": totals.streams, "messages": totals.messages, "bytes": totals.bytes}


@contextmanager
def _written(target: Path | None) -> Iterator[BinaryIO]:
    """A file that has its name only when it is whole and on disk; stdout for None."""
    if target is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"{target} cannot be written: {error.strerror}.") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@asynccontextmanager
async def _connected(
    nats: str | None, context: str | None
) -> AsyncIterator[tuple[NatsPort, Names]]:
    """A connection to the streams themselves."""
    from natalog.actors.names import Names
    from natalog.actors.nats_port import NatsPort

    async with located(nats, context) as target:
        port = await NatsPort.connect(
            ",".join(target.servers), name="natalog-cli", access=target.access
        )
        try:
            yield port, Names(target.prefix)
        finally:
            await port.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
