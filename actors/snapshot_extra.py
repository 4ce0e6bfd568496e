"""What a snapshot carries beside the value: all that a `BranchState` folds from its log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from natalog.actors.log import Position
from natalog.actors.state import BranchState, Moment
from natalog.core.beginning import Base
from natalog.core.codec import pack, unpack
from natalog.core.database import Database
from natalog.core.errors import NatalogError, SegmentCorrupt

VERSION: Final = 1
STATE: Final = "state"
COMMITS: Final = "commits"
IDS: Final = "ids"


def extra_of(state: BranchState, moment: Moment) -> dict[str, bytes]:
    """The further tables of a snapshot of ``state`` as it was at ``moment``."""
    began = state.began
    found = {
        STATE: pack(
            [
                VERSION,
                moment.position.seq,
                moment.position.hash,
                state.first_hash,
                state.created_ms,
                None if began is None else [began.lane, began.commit.bytes, began.tx],
                moment.ingest_seq,
                moment.changes,
                moment.commits,
                moment.ids,
            ]
        )
    }
    for number, chunk in enumerate(state.commits.chunks(moment.commits)):
        found[f"{COMMITS}/{number}"] = chunk
    for number, chunk in enumerate(state.ids.chunks(moment.ids)):
        found[f"{IDS}/{number}"] = chunk
    return found


def restore(state: BranchState, db: Database, extra: Mapping[str, bytes]) -> None:
    """Bring a fresh state to where a snapshot stands; `SegmentCorrupt` if it does not say."""
    try:
        version, seq, hash_, first_hash, created_ms, began, ingest_seq, changes, commits, ids = (
            unpack(extra[STATE])
        )
        if version != VERSION:
            raise ValueError(f"version {version!r}")
        state.first_hash = first_hash
        state.created_ms = created_ms
        if began is not None:
            state.began = Base(began[0], UUID(bytes=began[1]), began[2])
        state.ingest_seq = ingest_seq
        state.changes = changes
        number = 0
        while len(state.commits) < commits:
            state.commits.extend(extra[f"{COMMITS}/{number}"])
            number += 1
        number = 0
        while len(state.ids) < ids:
            state.ids.extend(extra[f"{IDS}/{number}"])
            number += 1
    except (NatalogError, KeyError, TypeError, ValueError) as error:
        raise SegmentCorrupt(f"The state in a snapshot cannot be read: {error}.") from error
    state.advance(db, Position(seq, hash_))
