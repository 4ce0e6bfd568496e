"""Segment stores: what is laid down is found, what is freed is gone, whoever writes meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from natalog.actors.names import Names
from natalog.actors.nats_server import NatsServer
from natalog.actors.pointers import JetStreamPointers, MemoryPointers, Pointers, Superseded
from natalog.actors.segments.jetstream import JetStreamShelf
from natalog.actors.segments.objects import ObjectShelf
from natalog.actors.segments.shelf import MemoryShelf, Shelf
from natalog.actors.segments.store import Moved, SegmentStore
from natalog.actors.segments.wire import Wire
from natalog.core.errors import InvalidConfig, TooLarge, Unavailable

KINDS = ("memory", "jetstream", "directory", "bucket")


class Lab:
    """Makes stores of one place, as several processes would."""

    def __init__(self, kind: str, root: Path, url: str = "") -> None:
        self.kind = kind
        self.root = root
        self.wires: list[Wire] = []
        self.url = url
        self._shelf: Shelf | None = None
        self._pointers: Pointers | None = None

    def shelf(self) -> Shelf:
        match self.kind:
            case "jetstream":
                return JetStreamShelf(self._wire(), Names(), "people")
            case "directory":
                return ObjectShelf((self.root / "objects").as_uri(), "natalog", "people")
        if self._shelf is None:
            memory = self.kind == "memory"
            self._shelf = (
                MemoryShelf() if memory else ObjectShelf("memory:///", "natalog", "people")
            )
        return self._shelf

    def pointers(self) -> Pointers:
        if self.kind == "jetstream":
            return JetStreamPointers(self._wire(), Names(), "people")
        if self._pointers is None:
            self._pointers = MemoryPointers()
        return self._pointers

    def store(self) -> SegmentStore:
        return SegmentStore("people", self.shelf(), self.pointers())

    def _wire(self) -> Wire:
        wire = Wire(self.url)
        self.wires.append(wire)
        return wire

    def close(self) -> None:
        for wire in self.wires:
            wire.close()


@contextmanager
def nats(root: Path) -> Iterator[NatsServer]:
    """A server for tests that block: its loop runs only to start and stop it."""
    server = NatsServer(root)
    asyncio.run(server.start())
    try:
        yield server
    finally:
        asyncio.run(server.stop())


@pytest.fixture(params=KINDS)
def lab(request: Any, tmp_path: Path) -> Iterator[Lab]:
    if request.param == "jetstream":
        with nats(tmp_path / "lab") as server:
            made = Lab(request.param, tmp_path, server.url)
            yield made
            made.close()
    else:
        yield Lab(request.param, tmp_path)


def segments(count: int, size: int = 100, salt: str = "") -> dict[str, bytes]:
    made = (f"{salt}{number}.".encode() * size for number in range(count))
    return {sha256(data).hexdigest(): data for data in made}


def held(root: Path, wanted: dict[str, bytes]) -> set[str]:
    """The segments whose bytes are in any file."""
    found = set()
    for directory, _, files in os.walk(root):  # what vanishes meanwhile is passed over
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                content = Path(directory, file).read_bytes()
                found |= {name for name, data in wanted.items() if data in content}
    return found


def soon(root: Path, wanted: dict[str, bytes], left: set[str]) -> bool:
    """Whether ``left`` is all that is left; a server removes files a moment after its answer."""
    for _ in range(500):
        if held(root, wanted) == left:
            return True
        time.sleep(0.01)
    return False


def test_what_is_put_is_got_by_every_process(lab: Lab) -> None:
    mine, theirs = lab.store(), lab.store()
    made = segments(100)
    assert mine.get(next(iter(made))) is None
    assert mine.put_many(made.items()) == sum(map(len, made.values()))
    assert {name: theirs.get(name) for name in made} == made
    assert theirs.missing({*made, "0" * 64}) == {"0" * 64}
    assert theirs.sizes() == {name: len(data) for name, data in made.items()}
    assert theirs.get("0" * 64) is None


def test_what_is_there_is_not_written_again(lab: Lab) -> None:
    made = segments(40)
    lab.store().put_many(made.items())
    size = lab.store().size
    store = lab.store()
    assert store.put_many(made.items()) == 0
    assert store.size == size


def test_keeping_some_removes_the_others(lab: Lab, tmp_path: Path) -> None:
    store, other = lab.store(), lab.store()
    made = segments(60)
    store.put_many(made.items())
    other.put_many(made.items())
    live = set(list(made)[:20])
    freed = store.keep(lambda: live)
    assert freed > sum(len(made[name]) for name in made if name not in live) * 0.9
    for found in (store, other, lab.store()):
        assert {name for name in made if found.get(name) is not None} == live
        assert found.missing(set(made)) == set(made) - live
    if lab.kind in ("jetstream", "directory"):
        assert soon(tmp_path, made, live)
    gone = {name: data for name, data in made.items() if name not in live}
    other.put_many(gone.items())
    assert not store.missing(set(made))


def test_a_reader_has_the_time_of_grace(lab: Lab) -> None:
    store, reader = lab.store(), lab.store()
    made = segments(10)
    store.put_many(made.items())
    name = next(iter(made))
    assert reader.get(name) == made[name]
    store.keep(set, grace_s=60)
    assert reader.get(name) == store.get(name) == made[name]
    assert store.missing({name}) == {name}, "it counts no more"
    store.sweep(grace_s=60)
    assert reader.get(name) == made[name]
    assert store.sweep() > 0
    assert reader.get(name) is None


def test_what_is_pointed_to_during_a_compaction_stays(lab: Lab) -> None:
    store, writer = lab.store(), lab.store()
    made, late = segments(10), segments(5, salt="late")
    store.put_many(made.items())
    asked = []

    def live() -> set[str]:
        asked.append(1)
        if len(asked) == 1:
            writer.put_many(late.items())  # into the old generation, pointed to after the look
            return set(made)
        return {*made, *late}

    store.keep(live)
    assert len(asked) >= 2
    assert not lab.store().missing({*made, *late})


def test_of_two_compactions_one_wins(lab: Lab) -> None:
    first, second = lab.store(), lab.store()
    made = segments(20)
    first.put_many(made.items())
    live = set(list(made)[:5])
    asked = []

    def overtaken() -> set[str]:
        if not asked:
            asked.append(1)
            second.keep(lambda: live)
        return set(made)

    with pytest.raises(Superseded):
        first.keep(overtaken)
    assert {name for name in made if lab.store().get(name) is not None} == live
    assert len(lab.shelf().generations()) == 1, "nothing is left of the one that lost"


def test_a_compaction_that_was_cut_short_is_cleared_by_the_next(lab: Lab) -> None:
    store = lab.store()
    made = segments(20)
    store.put_many(made.items())

    def killed() -> set[str]:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            store.keep(killed)
    lab.shelf().create(3)
    store.keep(lambda: set(made))
    assert not store.missing(set(made))
    assert len(lab.shelf().generations()) == 1


def test_a_writer_that_was_overtaken_begins_again(lab: Lab) -> None:
    writer, other = lab.store(), lab.store()
    made, late = segments(10), segments(200, salt="late")
    writer.put_many(made.items())

    def slow() -> Iterator[tuple[str, bytes]]:
        yield next(iter(late.items()))
        other.keep(lambda: set(made))
        yield from late.items()

    with pytest.raises(Moved):
        writer.put_many(slow())
    assert writer.put_many(late.items())
    assert not lab.store().missing({*made, *late})


def test_writers_of_the_same_segments_do_not_disturb_each_other(lab: Lab) -> None:
    first, second = lab.store(), lab.store()
    made = segments(300)
    assert not second.missing(set()), "it has seen that nothing is there"
    first.put_many(list(made.items())[100:200])
    second.put_many(made.items())
    assert first.missing(set(made)) == set()
    assert {name: first.get(name) for name in made} == made
    assert first.sizes() == {name: len(data) for name, data in made.items()}


def test_a_generation_that_is_lost_is_begun_anew(lab: Lab) -> None:
    store, other = lab.store(), lab.store()
    made = segments(10)
    store.put_many(made.items())
    lab.shelf().drop(1)
    assert other.missing(set(made)) == set(made)
    assert other.get(next(iter(made))) is None
    with pytest.raises(Moved):
        other.put_many(segments(3, salt="more").items())
    other.put_many(made.items())
    assert {name: store.get(name) for name in made} == made
    assert store.generations().current == 2


def test_a_corrupt_segment_is_as_good_as_missing_and_can_be_written_again(lab: Lab) -> None:
    store = lab.store()
    made = segments(3)
    name = next(iter(made))
    store.put_many([("f" * 64, b"no such bytes"), *made.items()])
    assert not lab.store().missing({"f" * 64})
    assert store.get("f" * 64) is None
    assert store.corrupt == 1
    assert lab.store().missing({"f" * 64, name}) == {"f" * 64}
    store.put_many([("f" * 64, b"again")])
    assert not lab.store().missing({"f" * 64})


def test_a_new_epoch_is_seen_by_all(lab: Lab) -> None:
    store, other = lab.store(), lab.store()
    assert store.void().epoch == 0, "there was nothing to declare void"
    store.put_many(segments(1).items())
    assert other.generations(fresh=True).epoch == 0
    assert store.void().epoch == 1
    assert other.generations(fresh=True).epoch == 1
    assert not other.missing(set(segments(1)))


def test_clearing_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    store = lab.store()
    made = segments(10)
    store.put_many(made.items())
    store.keep(lambda: set(list(made)[:5]), grace_s=60)
    store.clear()
    store.clear()
    assert store.size == 0
    assert not any(lab.store().get(name) for name in made)
    if lab.kind in ("jetstream", "directory"):
        assert soon(tmp_path, made, set())


def test_other_segments_than_these_count_not(lab: Lab) -> None:
    """Whoever keeps segments elsewhere begins anew, and numbers never repeat."""
    lab.store().put_many(segments(1).items())
    elsewhere = SegmentStore("people", MemoryShelf(), lab.pointers())
    if lab.kind == "memory":
        return
    assert elsewhere.generations() != lab.store().generations()
    assert elsewhere.generations().epoch == 1
    elsewhere.put_many(segments(1).items())
    assert elsewhere.generations().current == 2
    assert lab.store().generations().epoch == 2


def test_pointers_are_replaced_by_compare_and_set(lab: Lab) -> None:
    mine, theirs = lab.pointers(), lab.pointers()
    assert mine.read(3) is None
    assert mine.read_all() == {}
    mine.erase(3)
    version = mine.write(3, b"one", 0)
    with pytest.raises(Superseded):
        theirs.write(3, b"two", 0)
    newer = theirs.write(3, b"two", version)
    theirs.write(None, b"all", 0)
    with pytest.raises(Superseded):
        mine.write(3, b"three", version)
    found = mine.read(3)
    assert found is not None and (found.data, found.version) == (b"two", newer)
    assert {lane: one.data for lane, one in mine.read_all().items()} == {3: b"two"}
    mine.erase(3)
    assert theirs.read(3) is None
    assert theirs.write(3, b"again", 0)
    mine.clear()
    assert theirs.read(3) is None
    assert theirs.read(None) is None


# --- what is particular --------------------------------------------------------------------------


def test_an_event_loop_that_waits_for_a_segment_gets_it(tmp_path: Path) -> None:
    """The connection is not that of the loop: what blocks the loop does not block the answer."""
    with nats(tmp_path) as server:
        lab = Lab("jetstream", tmp_path, server.url)
        store = lab.store()
        made = segments(5)

        async def blocked() -> None:
            await to_thread.run_sync(store.put_many, list(made.items()))
            assert {name: store.get(name) for name in made} == made

        asyncio.run(blocked())
        lab.close()
        with pytest.raises(Unavailable):
            store.get(next(iter(made)))


def test_a_server_that_starts_again_is_found_again(tmp_path: Path) -> None:
    with nats(tmp_path) as server:
        lab = Lab("jetstream", tmp_path, server.url)
        store = lab.store()
        made = segments(5)
        store.put_many(made.items())
        asyncio.run(server.stop())
        more = segments(5, salt="more")
        putting = threading.Thread(target=store.put_many, args=[list(more.items())])
        putting.start()
        again = NatsServer(tmp_path, port=server.port)
        asyncio.run(again.start())  # a child ends with the thread that started it
        putting.join()
        assert {name: store.get(name) for name in {**made, **more}} == {**made, **more}
        lab.close()
        asyncio.run(again.stop())


def test_a_segment_that_fits_no_message_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with nats(tmp_path) as server:
        lab = Lab("jetstream", tmp_path, server.url)
        store = lab.store()
        with pytest.raises(TooLarge):
            store.put_many([("0" * 64, bytes(9_000_000))])
        made = segments(1, 1_000_000)
        store.put_many(made.items())
        assert store.get(next(iter(made))) == next(iter(made.values()))
        lab.close()


@pytest.mark.parametrize("url", ["nowhere://at/all", "s3://", "file"])
def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfig, match="segment_store"):
        ObjectShelf(url, "natalog", "people")


def test_secrets_in_a_url_are_not_written_down(tmp_path: Path) -> None:
    from natalog.actors.segments.objects import public

    assert public("s3://key:secret@bucket/path/?token=x") == "s3://bucket/path"
