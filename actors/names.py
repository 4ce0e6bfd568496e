"""Subjects and stream names of databases and branches, and which names are allowed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from natalog.core.errors import InvalidName
from natalog.core.limits import NAME_LENGTH_MAX

MAIN_BRANCH: Final = "db"
NOBODY: Final = "_"
"""Stands in a subject where no database or branch is meant."""
GONE: Final = "gone"
PREPARED: Final = "prepared"
SPENT: Final = "spent"
COLLECTED: Final = "collected"
SNAPSHOTS: Final = "snapshots"
SEGMENTS: Final = "segments"
REDACTIONS: Final = "redactions"
ERASURES: Final = "erasures"
HEAD: Final = "head"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")
_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z")


def check_name(name: object, what: str = "database") -> str:
    """The name itself; `InvalidName` when it could not be a token of a subject."""
    if isinstance(name, str) and len(name) <= NAME_LENGTH_MAX and _NAME.match(name):
        return name
    shown = repr(name)
    raise InvalidName(
        f"{shown[:80]} is no {what} name: letters, digits, '_' and '-', beginning with a letter "
        f"or digit, at most {NAME_LENGTH_MAX} characters.",
        name=shown[:80],
    )


@dataclass(frozen=True, slots=True)
class Names:
    """Everything that begins with the configured prefix."""

    prefix: str = "natalog"

    def __post_init__(self) -> None:
        if not _PREFIX.match(self.prefix):
            raise InvalidName(f"{self.prefix!r} is no subject prefix.", name=self.prefix)

    def subject(self, database: str, branch: str, endpoint: str) -> str:
        return f"{self.prefix}.{database}.{branch}.{endpoint}"

    def any_branch(self, endpoint: str) -> str:
        """The subscription for ``endpoint`` of every branch of every database."""
        return f"{self.prefix}.*.*.{endpoint}"

    def parse(self, subject: str) -> tuple[str, str, str]:
        """Database, branch and endpoint of a subject."""
        database, branch, endpoint = subject[len(self.prefix) + 1 :].split(".")
        return database, branch, endpoint

    def owner(self, subject: str) -> tuple[str, str]:
        """Database and branch of a subject, however many words follow."""
        database, branch, *_ = subject[len(self.prefix) + 1 :].split(".")
        return database, branch

    def log(self, database: str, branch: str) -> str:
        return self.subject(database, branch, "log")

    def ingest(self, database: str, branch: str) -> str:
        return self.subject(database, branch, "tx")

    def spent(self, database: str, branch: str, number: str) -> str:
        """The subject of an ingest stream that was handed over; the number may be a wildcard."""
        return f"{self.subject(database, branch, SPENT)}.{number}"

    def report(self, database: str, branch: str) -> str:
        return self.subject(database, branch, "report")

    # What lives under a lane is no name of a branch: "_" begins none.

    def gone(self, database: str, lane: int) -> str:
        """The subject of the log of a branch that was deleted."""
        return self.subject(database, f"{NOBODY}{lane}", GONE)

    def prepared(self, database: str, lane: int) -> str:
        """The subject of the log of a branch that waits to take its name over."""
        return self.subject(database, f"{NOBODY}{lane}", PREPARED)

    def collected(self, database: str) -> str:
        return self.subject(database, NOBODY, COLLECTED)

    def snapshots(self, database: str, lane: int) -> str:
        """The subject of the list of a lane's snapshots."""
        return self.subject(database, f"{NOBODY}{lane}", SNAPSHOTS)

    def generations(self, database: str) -> str:
        """The subject of the message that says where the segments of a database lie."""
        return self.subject(database, NOBODY, SNAPSHOTS)

    def segment(self, database: str, generation: int | str, name: str) -> str:
        """The subject of one segment; generation and name may be wildcards."""
        return f"{self.subject(database, NOBODY, SEGMENTS)}.{generation}.{name}"

    def head(self, database: str, lane: int) -> str:
        """The subject of the published head of a lane's log."""
        return self.subject(database, f"{NOBODY}{lane}", HEAD)

    def any_head(self, database: str) -> str:
        return self.subject(database, "*", HEAD)

    def lease(self) -> str:
        """Where the process that takes transactions says so, again and again."""
        return self.subject(NOBODY, NOBODY, "lease")

    def free(self) -> str:
        """Where it says that it has given the lease back."""
        return self.subject(NOBODY, NOBODY, "free")

    def alive(self, process: str) -> str:
        """Where one process answers that it is there."""
        return self.subject(NOBODY, NOBODY, f"alive-{process}")

    def redactions(self, database: str) -> str:
        """The subject of what erasures have done; its last message counts."""
        return self.subject(database, NOBODY, REDACTIONS)

    def redaction(self, database: str, piece: str) -> str:
        """The subject of a piece of a redacted copy or table; the piece may be a wildcard."""
        return f"{self.redactions(database)}.{piece}"

    def erasure(self, database: str, receipt: str) -> str:
        """The subject of a receipt, which may be a wildcard."""
        return f"{self.subject(database, NOBODY, ERASURES)}.{receipt}"

    # Stream names may not hold dots; "=" is in no name, so that two streams never share one.

    def _stream(self, *words: str) -> str:
        return "=".join([self.prefix.replace(".", "="), *words])

    def log_stream(self, database: str, branch: str = MAIN_BRANCH) -> str:
        """The stream that a database begins with: the log of lane 0."""
        return self._stream(database, branch, "log")

    def lane_stream(self, database: str, lane: int) -> str:
        """The stream of the log of a lane.  It keeps its name whatever becomes of the branch."""
        if lane == 0:
            return self.log_stream(database)
        return self._stream(database, f"{NOBODY}{lane}", "log")

    def lane_of(self, database: str, stream: str) -> int | None:
        """The lane of a log's stream; None for any other stream."""
        if stream == self.log_stream(database):
            return 0
        begin, end = self._stream(database, NOBODY), "=log"
        number = stream[len(begin) : -len(end)]
        if (
            stream.startswith(begin)
            and stream.endswith(end)
            and number.isascii()
            and number.isdigit()
        ):
            return int(number)
        return None

    def collected_stream(self, database: str) -> str:
        return self._stream(database, NOBODY, COLLECTED)

    def snapshots_stream(self, database: str) -> str:
        return self._stream(database, NOBODY, SNAPSHOTS)

    def segments_stream(self, database: str, generation: int) -> str:
        return self._stream(database, NOBODY, f"{SEGMENTS}_{generation}")

    def generation_of(self, database: str, stream: str) -> int | None:
        """The generation of a stream of segments; None for any other stream."""
        begin = self._stream(database, NOBODY, f"{SEGMENTS}_")
        number = stream[len(begin) :]
        return (
            int(number)
            if stream.startswith(begin) and number.isascii() and number.isdigit()
            else None
        )

    def segments_of(self, stream: str) -> str | None:
        """The database whose segments a stream holds; None for any other stream."""
        words = stream.rsplit("=", 3)
        if len(words) != 4 or words[0] != self.prefix.replace(".", "="):
            return None
        return words[1] if self.generation_of(words[1], stream) is not None else None

    def heads_stream(self, database: str) -> str:
        return self._stream(database, NOBODY, "heads")

    def lease_stream(self) -> str:
        return self._stream(NOBODY, NOBODY, "lease")

    def redactions_stream(self, database: str) -> str:
        return self._stream(database, NOBODY, REDACTIONS)

    def ingest_stream(self, database: str, branch: str, number: int = 0) -> str:
        """The stream that feeds a branch, after ``number`` hand-overs."""
        return self._stream(database, branch, f"tx_{number}" if number else "tx")

    def inlet_of(self, database: str, branch: str, stream: str) -> int | None:
        """Which of a branch's ingest streams a stream is; None for any other stream."""
        first = self.ingest_stream(database, branch)
        number = stream[len(first) + 1 :]
        if stream == first:
            return 0
        return (
            int(number)
            if stream.startswith(f"{first}_") and number.isascii() and number.isdigit()
            else None
        )
