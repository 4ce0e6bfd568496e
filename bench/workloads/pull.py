"""Pull and point reads; a figure is that of the whole loop, a thousand reads where it says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from datasets import Dataset, Entity, shuffled_ids
from measure import Answer, Line, answer, check, median_ms
from natalog_system import ID, Loaded

from natalog.core.database import Database
from natalog.core.edn import read
from natalog.core.entity import entity
from natalog.core.pull import pull, pull_many
from natalog.core.query import q
from natalog.core.values import Keyword
from workloads.base import Bench
from workloads.queries import people

NAME = Keyword("name")
SIX = ("name", "last-name", "alias", "sex", "age", "salary")
ALL = ("id", "name", "last-name", "full-name", "alias", "sex", "age", "salary")
PULL_ONE = "[:name {:follows ...}]"
PULL_MANY = "[:name :last-name :alias :sex :age :salary {:follows ...}]"
LOOKUP = "[:find ?n . :in $ ?id :where [?e :id ?id] [?e :name ?n]]"
READS = 1_000

Read = Callable[[Loaded], tuple[Callable[[], Any], Callable[[Any], Answer]]]


def node_row(node: Any, names: tuple[str, ...]) -> list[str]:
    """A pulled map or an entity of the data as one text for each attribute."""
    found = []
    for name in names:
        value = node.get(name, [])
        listed = sorted(value) if isinstance(value, list | tuple | set | frozenset) else [value]
        found.append(",".join(str(item).removeprefix(":") for item in listed))
    return found


def nodes_of(tree: Any) -> Iterator[dict[str, Any]]:
    """The nodes of a pulled tree, with plain names for keys."""
    yield {key.text: value for key, value in tree.items()}
    for child in tree.get(Keyword("follows"), ()):
        yield from nodes_of(child)


def of_nodes(nodes: Any, names: tuple[str, ...]) -> Answer:
    return answer([node_row(node, names) for node in nodes], "v" * len(names))


def tree_pull(pattern: str, names: tuple[str, ...]) -> Read:
    form = read(pattern)

    def make(loaded: Loaded) -> tuple[Callable[[], Any], Callable[[Any], Answer]]:
        root = loaded.eids[1]
        return (
            lambda: pull(loaded.db, form, root),
            lambda found: of_nodes(nodes_of(found), names),
        )

    return make


def shown_whole(found: Any) -> Answer:
    return of_nodes(({k.text: v for k, v in one.items()} for one in found), ALL)


def wildcard_each(loaded: Loaded) -> tuple[Callable[[], Any], Callable[[Any], Answer]]:
    """``[*]`` of every entity, one after the other."""
    form = read("[*]")
    eids = list(loaded.ids)
    return lambda: [pull(loaded.db, form, e) for e in eids], shown_whole


def wildcard_many(loaded: Loaded) -> tuple[Callable[[], Any], Callable[[Any], Answer]]:
    form = read("[*]")
    eids = [loaded.eids[number] for number in reads(loaded)]
    return lambda: pull_many(loaded.db, form, eids), shown_whole


def reads(loaded: Loaded) -> tuple[int, ...]:
    """The ids to look up, the same in every system."""
    return shuffled_ids(len(loaded.ids))[:READS]


def by_lookup(look: Callable[[Database, int], Any]) -> Read:
    """A name looked up by id, again and again."""

    def make(loaded: Loaded) -> tuple[Callable[[], Any], Callable[[Any], Answer]]:
        db, ids = loaded.db, reads(loaded)
        return (
            lambda: [look(db, number) for number in ids],
            lambda found: answer(zip(ids, found, strict=True), "vv"),
        )

    return make


def by_entity(loaded: Loaded) -> tuple[Callable[[], Any], Callable[[Any], Answer]]:
    """The datom of a name found by its entity."""
    db, ids = loaded.db, reads(loaded)
    eids = [loaded.eids[number] for number in ids]
    return (
        lambda: [db.datoms("eavt", (e, NAME))[0].v for e in eids],
        lambda found: answer(zip(ids, found, strict=True), "vv"),
    )


def entity_name(db: Database, number: int) -> Any:
    found = entity(db, (ID, number))
    assert found is not None
    return found[NAME]


def pulled_name(db: Database, number: int) -> Any:
    found = pull(db, [NAME], (ID, number))
    assert found is not None
    return found[NAME]


def names_expected(dataset: Dataset) -> Answer:
    names = {one["id"]: one["name"] for one in people(dataset)}
    ids = shuffled_ids(len(names))[:READS]
    return answer(((number, names[number]) for number in ids), "vv")


def chosen(dataset: Dataset) -> list[Entity]:
    known = {one["id"]: one for one in people(dataset)}
    return [known[number] for number in shuffled_ids(len(known))[:READS]]


WORKLOADS: list[tuple[str, str, Read, Callable[[Dataset], Answer]]] = [
    *(
        (name, "tree", tree_pull(form, names), lambda d, names=names: of_nodes(d.entities, names))
        for name, form, names in (
            ("pull-one", PULL_ONE, ("name",)),
            ("pull-many", PULL_MANY, SIX),
        )
    ),
    ("pull-wildcard", "tree", wildcard_each, lambda d: of_nodes(d.entities, ALL)),
    ("pull-many-1000-wildcard", "people", wildcard_many, lambda d: of_nodes(chosen(d), ALL)),
    ("find-datoms-1000", "people", by_entity, names_expected),
    ("lookup-entity-x1000", "people", by_lookup(entity_name), names_expected),
    ("lookup-pull-x1000", "people", by_lookup(pulled_name), names_expected),
    (
        *("lookup-q-x1000", "people"),
        by_lookup(lambda db, number: q(LOOKUP, db, number).python()),
        names_expected,
    ),
    (
        *("lookup-datoms-x1000", "people"),
        by_lookup(lambda db, n: db.datoms("eavt", (db.datoms("avet", (ID, n))[0].e, NAME))[0].v),
        names_expected,
    ),
]


def run(bench: Bench) -> Iterator[Line]:
    for name, dataset, read_with, expect in WORKLOADS:
        work, shown = read_with(bench.load(dataset))
        found = shown(work())
        check(name, found, expect(bench.files.dataset(dataset)))
        median, samples = median_ms(work, bench.protocol)
        yield Line("natalog", name, median, samples, found._asdict())
