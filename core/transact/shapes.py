"""Maps that many entities are written with: the same attributes, one plain value each, or a list.

What the keys of a map mean is found once for a schema.  A map of such a shape whose values have
the expected classes is a new entity when nobody has its identity: its facts are written down
without a look at any of them.

Measured: a new entity of five attributes 1.6 microseconds, 3.0 without.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain, cycle, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from natalog.core.changes import Block
from natalog.core.errors import TransactError
from natalog.core.limits import LONG_MAX, LONG_MIN
from natalog.core.values import Datom, Keyword, is_long

if TYPE_CHECKING:
    from natalog.core.transact.plans import Plan
    from natalog.core.transact.state import Work

_SHAPES_MAX: Final = 256
"""Shapes that are kept for a schema."""
_datom: Final = partial(tuple.__new__, Datom)


class Shape(NamedTuple):
    """``classes`` of the values of ``attributes``; ``ranged``: which of them must fit 64 bits.

    ``identity``: which of them identifies entities, -1 for none.  ``lists``: which of them have
    several values, given as a list.
    """

    plans: tuple[Plan, ...]
    attributes: tuple[Keyword, ...]
    classes: tuple[type, ...]
    ranged: tuple[int, ...]
    identity: int
    lists: tuple[int, ...]


def assert_shape(work: Work, operation: dict[Any, Any]) -> int | None:
    """Assert a map of a known shape: its entity; None, and nothing done, for any other map."""
    keys = tuple(operation)
    shapes = work.shapes
    shape = shapes.get(keys)
    if shape is None:
        if keys in shapes or not _learn(work, keys):
            return None
        shape = shapes[keys]
        if shape is None:
            return None
    values = tuple(operation.values())
    if tuple(map(type, values)) != shape.classes:
        return None
    for spot in shape.ranged:
        if not LONG_MIN <= values[spot] <= LONG_MAX:
            return None
    for spot in shape.lists:
        if not _plain_members(shape.plans[spot], values[spot]):
            return None
    identity = shape.identity
    if identity >= 0:
        attr, value = shape.attributes[identity], values[identity]
        if work.bindings.claims:
            return None
        holder = work.holder(attr, value)
        if holder is not None:
            _put(work, holder, shape, values)
            return holder
    work.max_eid = e = work.max_eid + 1
    work.fresh.add(e)
    datoms = work.datoms
    start = len(datoms)
    attributes: Iterable[Keyword] = shape.attributes
    said: Iterable[Any] = values
    if shape.lists:
        pairs = _flat(shape, values)
        attributes, said = (attr for attr, _ in pairs), (value for _, value in pairs)
    datoms.extend(map(_datom, zip(repeat(e), attributes, said, repeat(work.tx), repeat(True))))
    work.spans[e] = (start, len(datoms))
    if identity >= 0:
        work.uniques[attr, value] = e
    return e


def assert_block(work: Work, operations: Sequence[Any]) -> bool:
    """Assert maps of one shape, each of a new entity; False, and nothing done, for any others.

    What is checked of a map is checked of columns here: 0.8 microseconds for a new entity of five
    attributes, its datoms included.
    """
    if set(map(type, operations)) != {dict} or work.dirty or work.bindings.claims:
        return False
    keys = tuple(operations[0])
    if list(map(tuple, operations)).count(keys) < len(operations):
        return False
    shape = _shape_of(work, keys)
    if shape is None or shape.lists:
        return False
    columns = list(zip(*map(dict.values, operations), strict=True))
    for kind, column in zip(shape.classes, columns, strict=True):
        if set(map(type, column)) != {kind}:
            return False
    for spot in shape.ranged:
        if min(columns[spot]) < LONG_MIN or max(columns[spot]) > LONG_MAX:
            return False
    first = work.max_eid + 1
    entities = range(first, first + len(operations))
    if shape.identity >= 0:
        attr, column = shape.attributes[shape.identity], columns[shape.identity]
        if not work.are_vacant(attr, column):
            return False
        work.uniques.update(((attr, value), e) for value, e in zip(column, entities, strict=True))
    work.max_eid = entities[-1]
    work.fresh.update(entities)
    datoms, width = work.datoms, len(keys)
    block = Block(len(datoms), first, shape.attributes, columns)
    facts = zip(
        chain.from_iterable(map(repeat, entities, repeat(width))),
        cycle(shape.attributes),
        chain.from_iterable(zip(*columns, strict=True)),
        repeat(work.tx),
        repeat(True),
        strict=False,
    )
    datoms.extend(map(_datom, facts))
    for e, start in zip(entities, range(block.start, block.stop, width), strict=True):
        work.spans[e] = (start, start + width)
    work.blocks.append(block)
    return True


def _shape_of(work: Work, keys: tuple[Any, ...]) -> Shape | None:
    """The shape of maps with these keys, whether they were seen before or not."""
    if keys not in work.shapes:
        try:
            for key in keys:
                work.entry(key, keys)
        except TransactError:  # the first map will say so
            return None
        _learn(work, keys)
    return work.shapes.get(keys)


def _plain_members(plan: Plan, members: list[Any]) -> bool:
    """Whether a list has values of the exact class only, each once."""
    if not members or set(map(type, members)) != {plan.exact} or len(set(members)) < len(members):
        return False
    return plan.value_type != "long" or all(map(is_long, members))


def _flat(shape: Shape, values: Sequence[Any]) -> list[tuple[Keyword, Any]]:
    pairs: list[tuple[Keyword, Any]] = []
    for spot, (attr, value) in enumerate(zip(shape.attributes, values, strict=True)):
        if spot in shape.lists:
            pairs += [(attr, member) for member in value]
        else:
            pairs.append((attr, value))
    return pairs


def _put(work: Work, e: int, shape: Shape, values: Sequence[Any]) -> None:
    """Assert the values of an entity that is there already."""
    for spot, (plan, value) in enumerate(zip(shape.plans, values, strict=True)):
        if spot == shape.identity:  # by which it was found
            continue
        for member in value if spot in shape.lists else (value,):
            work.put(e, plan, member)


def _learn(work: Work, keys: tuple[Any, ...]) -> bool:
    """Find out the shape of a map with these keys; False while some of them are not known yet."""
    entries = [work.plans.get(key) for key in keys]
    if any(entry is None for entry in entries):
        return False
    if len(work.shapes) >= _SHAPES_MAX:
        work.shapes.clear()
    work.shapes[keys] = _shape(keys, entries)
    return True


def _shape(keys: tuple[Any, ...], entries: list[Any]) -> Shape | None:
    if not keys or len({entry.plan.ident for entry in entries}) < len(keys):
        return None
    identity = -1
    lists: list[int] = []
    for spot, entry in enumerate(entries):
        plan = entry.plan
        if entry.fast is not None:
            continue
        if entry.reverse or not plan.plain or plan.schema or plan.parts or plan.composite:
            return None
        if plan.many and not plan.unique:
            lists.append(spot)
        elif plan.identity and not plan.many and identity < 0:
            identity = spot
        else:
            return None
    classes = [list if spot in lists else entry.plan.exact for spot, entry in enumerate(entries)]
    return Shape(
        tuple(entry.plan for entry in entries),
        tuple(entry.plan.ident for entry in entries),
        tuple(classes),
        tuple(n for n, entry in enumerate(entries) if entry.ranged and n not in lists),
        identity,
        tuple(lists),
    )
