"""Whether an answer is the recorded one: the comparison rules of FORMAT.md, section 4.

Both sides are brought into one shape first (`normal`): lists, `SetOf`, `Pairs` and scalars.  Then
`Comparison.same` walks both, with labels of commits bound to ids as they are met.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

from natalog.core.edn import read
from natalog.core.errors import NatalogError
from natalog.core.limits import TX_BASE
from natalog.core.values import Doubles, Floats, Keyword, Regex, Symbol, Tagged, instant_ms

RECORDED_TX0 = 536870912
RECORDED_TX_MAX = 537870912

K = Keyword
OK, ERROR, ANY = K("ok"), K("error"), K("dh/any")
READS = frozenset(
    {
        *("q", "pull", "pull-many", "entity", "datoms", "seek-datoms", "rseek-datoms"),
        *("index-range", "schema", "reverse-schema", "metrics", "db-info"),
    }
)
_DATOM_LISTS = frozenset({"datoms", "seek-datoms", "rseek-datoms", "index-range"})
_DATA_MAPS = frozenset({"q", "pull", "pull-many", "entity"})


class SetOf(list[Any]):
    """The members of a set, in no order."""


class Pairs(list[tuple[Any, Any]]):
    """The entries of a map, in no order."""


def recorded_int(number: int) -> int:
    """A transaction id of ours as the recorded system counts; other integers as they are."""
    if TX_BASE <= number <= TX_BASE + (RECORDED_TX_MAX - RECORDED_TX0):
        return number - TX_BASE + RECORDED_TX0
    return number


def normal(value: Any, *, ours: bool) -> Any:
    """A value as lists, `SetOf`, `Pairs` and scalars; ``ours``: with transaction ids recorded."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return recorded_int(int(value)) if ours else int(value)
    if isinstance(value, (bytes, bytearray)):
        return [K("dh/bytes"), value.hex()]
    if isinstance(value, Tagged):
        return [Symbol("#" + value.tag), normal(value.value, ours=ours)]
    if isinstance(value, Regex):
        return [K("dh/opaque"), value.pattern]
    if isinstance(value, Mapping):
        return Pairs((normal(k, ours=ours), normal(v, ours=ours)) for k, v in value.items())
    if isinstance(value, (Doubles, Floats)):
        name = "dh/doubles" if isinstance(value, Doubles) else "dh/floats"
        return [K(name), [float(number) for number in value]]
    if isinstance(value, (list, tuple)):
        return [normal(item, ours=ours) for item in value]
    if isinstance(value, Set):
        return SetOf(normal(item, ours=ours) for item in value)
    if isinstance(value, float):
        return float(value)
    return value


def fingerprint(value: Any) -> str:
    """Text that sorts equal values next to each other; doubles are rounded."""
    if isinstance(value, float):
        return f"d{value + 0.0:.6g}"
    if isinstance(value, datetime):
        return f"i{instant_ms(value)}"
    if isinstance(value, Decimal):
        return f"m{value.normalize()}"
    if isinstance(value, SetOf):
        return f"#{sorted(map(fingerprint, value))}"
    if isinstance(value, Pairs):
        return f"h{sorted(fingerprint(k) + '=' + fingerprint(v) for k, v in value)}"
    if isinstance(value, list):
        return f"v{list(map(fingerprint, value))}"
    return f"{type(value).__name__}{value!r}"


@dataclass
class Outcome:
    """What a step gave: ``ok``, an ``error`` of the system, or a ``crash`` (another exception)."""

    ok: Any = None
    error: NatalogError | None = None
    crash: BaseException | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None or self.crash is not None


@dataclass
class Comparison:
    """One scenario's comparisons; ``labels`` and ``ids`` map commits one to one."""

    labels: dict[Keyword, UUID] = field(default_factory=dict)
    ids: dict[UUID, Keyword] = field(default_factory=dict)

    def bind(self, label: Keyword, commit: UUID) -> bool:
        """Whether ``label`` may stand for ``commit``; from now on it does."""
        if label in self.labels or commit in self.ids:
            return self.labels.get(label) == commit
        self.labels[label] = commit
        self.ids[commit] = label
        return True

    # --- values --------------------------------------------------------------------------------

    def same(self, want: Any, got: Any, *, bags: bool = False) -> bool:
        """Equality of normal values; with ``bags`` lists are multisets at every depth."""
        if isinstance(got, UUID) and isinstance(want, Keyword):
            return self.bind(want, got)
        if isinstance(want, Pairs):
            return (
                isinstance(got, Pairs)
                and len(want) == len(got)
                and self._match(
                    [[key, value] for key, value in want],
                    [[key, value] for key, value in got],
                    lambda a, b: self.same(a[0], b[0]) and self.same(a[1], b[1], bags=bags),
                )
            )
        if isinstance(want, SetOf):
            return isinstance(got, SetOf) and self.same_bag(want, got, bags=bags)
        if isinstance(want, list):
            if not isinstance(got, list) or isinstance(got, (SetOf, Pairs)):
                return False
            if bags:
                return self.same_bag(want, got, bags=True)
            return len(want) == len(got) and all(
                # inside a map lists are values of many-valued attributes
                self.same(a, b, bags=isinstance(a, Pairs))
                for a, b in zip(want, got, strict=True)
            )
        return _same_scalar(want, got)

    def same_bag(self, want: list[Any], got: list[Any], *, bags: bool = False) -> bool:
        """Equality as multisets."""
        return len(want) == len(got) and self._match(
            want, got, lambda a, b: self.same(a, b, bags=bags or isinstance(a, Pairs))
        )

    def _match(self, want: list[Any], got: list[Any], same: Any) -> bool:
        left, right = sorted(want, key=fingerprint), sorted(got, key=fingerprint)
        saved = dict(self.labels), dict(self.ids)
        if all(same(a, b) for a, b in zip(left, right, strict=True)):
            return True
        self.labels, self.ids = saved
        if len(want) > 400:
            return False
        rest = list(right)
        for item in left:
            for at, other in enumerate(rest):
                saved = dict(self.labels), dict(self.ids)
                if same(item, other):
                    del rest[at]
                    break
                self.labels, self.ids = saved
            else:
                return False
        return True

    def same_keys(self, want: Pairs, got: Any, *, inner: bool = False) -> bool:
        """Equality of the map ``got`` on the keys that ``want`` has."""
        if not isinstance(got, Pairs):
            return False
        for key, value in want:
            found = [item for other, item in got if _same_scalar(key, other)]
            if not found:
                return False
            if isinstance(value, Pairs) and key == K("config"):
                if not self.same_keys(value, found[0]):
                    return False
            elif key == K("tx-data"):
                if not self._same_full(value, found[0]):
                    return False
            elif not self.same(value, found[0]):
                return False
        return True

    # --- whole answers -------------------------------------------------------------------------

    def differs(self, step: dict[Any, Any], want: dict[Any, Any], got: Outcome) -> str | None:
        """Why the outcome of ``step`` is not ``want``; None when it is."""
        if got.crash is not None:
            return "crashed"
        if ANY in want:
            return None
        if ERROR in want:
            if got.error is None:
                return "an error was expected"
            return self._error_differs(step, want[ERROR], got.error)
        if got.error is not None:
            return "an answer was expected"
        if want[OK] is ANY:
            return None
        expected, found = normal(want[OK], ours=False), normal(got.ok, ours=True)
        return None if self._same_answer(step, expected, found) else "the answers differ"

    def _error_differs(
        self, step: dict[Any, Any], want: dict[Any, Any], got: NatalogError
    ) -> str | None:
        wanted = want.get(K("type"))
        space = wanted.namespace if isinstance(wanted, Keyword) else None
        if space is None:
            return None
        actual = got.type or ""
        if space == "parser":
            fits = actual.startswith("parser/")
        elif space == "transact":
            fits = step[K("op")].name in READS or actual == wanted.text
        elif space.startswith("query"):
            fits = actual == wanted.text
        else:
            fits = True
        return None if fits else "the error types differ"

    def _same_answer(self, step: dict[Any, Any], want: Any, got: Any) -> bool:
        op = step[K("op")].name
        if op == "q":
            return self._same_query_answer(step, want, got)
        if op == "gc":
            return True
        if op in ("pull", "entity"):
            return self.same(want, got, bags=True)
        if op == "pull-many":
            return (
                isinstance(got, list)
                and len(want) == len(got)
                and all(self.same(a, b, bags=True) for a, b in zip(want, got, strict=True))
            )
        if op in _DATOM_LISTS:
            if _as_of(step.get(K("view"))):
                return isinstance(got, list) and self.same_bag(want, got)
            return self._same_runs(want, got, lambda row: row[:4])
        if op == "history":
            if not isinstance(got, list) or len(want) != len(got):
                return False
            return self._match(want, got, self.same_keys)
        if isinstance(want, Pairs) and op not in ("schema", "reverse-schema", "metrics"):
            return self.same_keys(want, got)
        return self.same(want, got)

    def _same_query_answer(self, step: dict[Any, Any], want: Any, got: Any) -> bool:
        if not isinstance(want, list) or isinstance(want, (SetOf, Pairs)):
            return self.same(want, got, bags=isinstance(want, Pairs))
        if K("order-by") in step or find_kind(step[K("query")]) in ("tuple", "scalar"):
            return self.same(want, got)
        return (
            isinstance(got, list)
            and not isinstance(got, (SetOf, Pairs))
            and self.same_bag(want, got)
        )

    def _same_runs(self, want: list[Any], got: Any, key: Any) -> bool:
        """In order, except among neighbours that agree in ``key``."""
        if not isinstance(got, list) or len(want) != len(got):
            return False
        start = 0
        for at in range(1, len(want) + 1):
            if at == len(want) or key(want[at]) != key(want[start]):
                if not self.same_bag(want[start:at], got[start:at]):
                    return False
                start = at
        return True

    def _same_full(self, want: list[Any], got: Any) -> bool:
        """Facts of a full report: neighbours on one entity may change places, but what a fact
        replaces stays before it."""
        if not self._same_runs(want, got, lambda row: row[0]):
            return False
        # a retraction and the assertion that replaces it stay in order: compare each (e, a) alone
        groups = {str(row[:2]): row[:2] for row in want}
        for key in groups.values():
            if {row[4] for row in want if row[:2] == key} == {True, False} and (
                [row[4] for row in want if row[:2] == key]
                != [row[4] for row in got if row[:2] == key]
            ):
                return False
        return True


def _same_scalar(want: Any, got: Any) -> bool:
    if isinstance(want, float):
        if type(got) is not float:
            return False
        if want != want or got != got:
            return want != want and got != got
        return want == got or math.isclose(want, got, rel_tol=1e-9, abs_tol=0.0)
    if isinstance(want, datetime):
        return isinstance(got, datetime) and instant_ms(want) == instant_ms(got)
    if isinstance(want, (Decimal, Fraction)):
        return type(got) is type(want) and bool(want == got)
    return type(want) is type(got) and bool(want == got)


def _as_of(view: Any) -> bool:
    """Whether a view is, or lies over, an as-of view."""
    if not isinstance(view, dict):
        return False
    return view.get(K("db")) is K("as-of") or _as_of(view.get(K("of")))


def find_kind(query: Any) -> str:
    """``relation``, ``collection``, ``tuple`` or ``scalar``: the find clause of a query."""
    if isinstance(query, str):
        try:
            query = read(query)
        except NatalogError:
            return "relation"
    if isinstance(query, Mapping):
        find = query.get(K("find"))
    elif isinstance(query, (list, tuple)):
        parts = list(query)
        find = []
        for part in parts[parts.index(K("find")) + 1 :] if K("find") in parts else []:
            if isinstance(part, Keyword):
                break
            find.append(part)
    else:
        find = None
    if not isinstance(find, (list, tuple)) or not find:
        return "relation"
    if find[-1] == Symbol("."):
        return "scalar"
    if len(find) == 1 and type(find[0]) is list:
        return "collection" if find[0][-1:] == [Symbol("...")] else "tuple"
    return "relation"
