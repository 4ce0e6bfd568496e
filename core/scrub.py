"""What else of a record repeats a value: names that producers gave, and tx-meta as it was written.

Datoms are not the only place of a value in a record.  A producer may have used it as the id of the
transaction, as a temporary id, or inside tx-meta (which is kept as it was written, lookup refs and
all).  An erasure takes it out of there, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import datetime
from typing import Any
from uuid import UUID

from natalog.core.edn import parse_instant
from natalog.core.redacted import erased_id
from natalog.core.schema import TX_INSTANT
from natalog.core.values import Datom, Keyword, Regex, Symbol, Tagged, instant_ms, value_key


def contains(value: Any, text: str) -> bool:
    """Whether a value is, or holds anywhere, ``text``.

    >>> contains(("a", Keyword("person/ann")), "ann"), contains(5, "5")
    (True, False)
    """
    return any(_holds(leaf, text) for leaf in leaves(value))


def leaves(value: Any) -> Iterator[Any]:
    """The scalars of a value, those of keys of maps too."""
    if isinstance(value, Tagged):
        yield value.tag
        yield from leaves(value.value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(key)
            yield from leaves(inner)
    elif isinstance(value, (list, tuple, Set)) and not isinstance(value, Regex):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


def _holds(leaf: Any, text: str) -> bool:
    if isinstance(leaf, str):
        return text in leaf
    if isinstance(leaf, (Keyword, Symbol)):
        return text in leaf.text or text == f":{leaf.text}"
    if isinstance(leaf, (bytes, bytearray)):
        return text.encode("utf-8", "surrogatepass") in leaf
    if isinstance(leaf, Regex):
        return text in leaf.pattern
    return isinstance(leaf, UUID) and str(leaf) == text.lower()


class Scrub:
    """The values that must not be seen again, and how to take them out of the rest of a record.

    ``values``: of erased facts; ``text``: what is to go wherever it stands.  Values are found as
    they are, whether they were written as text or not; ``text`` also inside other texts.
    """

    __slots__ = ("_forms", "_names", "text")

    def __init__(self, values: Iterable[Any], text: str | None = None) -> None:
        self._forms: set[Any] = set()
        self._names: set[str] = set()
        for value in values:
            for leaf in leaves(value):
                self._forms.update(_forms(leaf))
                name = _name(leaf)
                if name:
                    self._names.add(name)
        self.text = text

    def __bool__(self) -> bool:
        return bool(self._forms or self.text)

    def meta_tells(self, meta: Mapping[Any, Any], facts: Iterable[Any] = ()) -> bool:
        """Whether tx-meta holds something that is to go.

        ``facts``: values that stay as facts about the transaction; they may stay in its tx-meta.
        """
        told: set[Any] | None = None
        for leaf in leaves(list(meta.values())):
            forms = _forms(leaf)
            holds = self.text is not None and _holds(leaf, self.text)
            if holds or not self._forms.isdisjoint(forms):
                if told is None:
                    told = {
                        form for value in facts for one in leaves(value) for form in _forms(one)
                    }
                if told.isdisjoint(forms):
                    return True
        return False

    def name_tells(self, name: str, inside: Iterable[str] = ()) -> bool:
        """Whether a name is, or holds, something that is to go; ``inside``: texts to look for."""
        if name in self._names or name.lstrip(":") in self._names:
            return True
        if self.text is not None and self.text in name:
            return True
        return any(text in name for text in inside if text)

    def ident(self, ident: str | None, inside: Iterable[str] = ()) -> str | None:
        """A producer's id as it may stay."""
        if ident is not None and self.name_tells(ident, inside):
            return erased_id(ident)
        return ident

    def tempids(self, tempids: Mapping[Any, int], *, all_names: bool) -> Mapping[Any, int]:
        """Temporary ids as they may stay; ``all_names``: no text is left among them."""
        kept = {
            name: e
            for name, e in tempids.items()
            if not isinstance(name, str) or not (all_names or self.name_tells(name))
        }
        return tempids if len(kept) == len(tempids) else kept


def written_alike(left: Any, right: Any) -> bool:
    """Whether two values are the same, one of them perhaps written as text."""
    if value_key(left) == value_key(right):
        return True
    scalars = not isinstance(left, (list, tuple, Mapping, Set)) and len([*leaves(right)]) == 1
    return scalars and not _forms(left).isdisjoint(_forms(right))


def texts(values: Iterable[Any]) -> list[str]:
    """The texts among the scalars of values."""
    return [name for value in values for leaf in leaves(value) if (name := _name(leaf))]


def meta_of(tx: int, datoms: Sequence[Datom]) -> dict[Any, Any]:
    """tx-meta as the facts about a transaction say it."""
    found: dict[Any, Any] = {}
    for datom in datoms:
        if datom.e != tx or datom.a is TX_INSTANT or not datom.added:
            continue
        if datom.a not in found:
            found[datom.a] = datom.v
        elif isinstance(found[datom.a], list):
            found[datom.a].append(datom.v)
        else:
            found[datom.a] = [found[datom.a], datom.v]
    return found


def _name(leaf: Any) -> str | None:
    if isinstance(leaf, (Keyword, Symbol)):
        return leaf.text
    if isinstance(leaf, UUID):
        return str(leaf)
    return leaf if isinstance(leaf, str) else None


def _forms(leaf: Any) -> set[Any]:
    """What a scalar is equal to in any of the ways to write it."""
    if isinstance(leaf, str):
        found = {leaf, leaf.lstrip(":")}
        with contextlib.suppress(ValueError):
            found.add(f"@{instant_ms(parse_instant(leaf))}")
        return found
    if leaf is None or isinstance(leaf, bool):
        return set()
    if isinstance(leaf, datetime):
        return {f"@{instant_ms(leaf)}"}
    name = _name(leaf)
    if name is not None:
        return {name}
    return {str(leaf), value_key(leaf)}


__all__ = ["Scrub", "contains", "leaves", "meta_of", "texts", "written_alike"]
