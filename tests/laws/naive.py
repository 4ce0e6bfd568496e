"""An obviously right database: a list of datoms, and queries by nested loops.

Slow on purpose.  Nothing here is shared with the system but the classes of values, their identity
(`value_key`) and the EDN reader.  Queries are EDN text over patterns, comparisons, ``not``, ``or``,
``or-join``, rules and a few aggregates.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from natalog.core.edn import read
from natalog.core.values import Datom, EdnList, Keyword, Symbol, instant_ms, sort_key, value_key

K = Keyword
INSTANT = K("db/txInstant")
BLANK = Symbol("_")

Fact = tuple[int, Keyword, Any]
Binding = dict[Symbol, Any]
Rules = dict[Symbol, list[tuple[list[Symbol], list[Any]]]]


# --- the database ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Naive:
    """All datoms ever, in the order of their transactions, and which part of them is in view.

    ``many`` and ``refs`` say which attributes hold several values and which refer to entities.
    """

    many: frozenset[Keyword] = frozenset()
    log: tuple[Datom, ...] = ()
    instants: dict[int, int] = field(default_factory=dict)
    until: Callable[[int], bool] = lambda tx: True
    after: Callable[[int], bool] = lambda tx: True
    is_history: bool = False

    def transact(self, datoms: Iterable[Datom]) -> Naive:
        """The database after one transaction, given as datoms in their order."""
        added = tuple(datoms)
        instants = dict(self.instants)
        for datom in added:
            if datom.a is INSTANT and datom.added and datom.e == datom.tx:
                instants[datom.tx] = instant_ms(datom.v)
        return Naive(self.many, self.log + added, instants)

    # views -----------------------------------------------------------------------------------

    def as_of(self, point: int | datetime) -> Naive:
        old, ms = self.until, point if isinstance(point, int) else instant_ms(point)
        if isinstance(point, int):
            return self._view(until=lambda tx: old(tx) and tx <= ms)
        return self._view(until=lambda tx: old(tx) and self.instants.get(tx, ms + 1) <= ms)

    def since(self, point: int | datetime) -> Naive:
        old, ms = self.after, point if isinstance(point, int) else instant_ms(point)
        if isinstance(point, int):
            return self._view(after=lambda tx: old(tx) and tx > ms)
        return self._view(after=lambda tx: old(tx) and self.instants.get(tx, ms + 1) > ms)

    def history(self) -> Naive:
        return self._view(is_history=True)

    def _view(self, **changed: Any) -> Naive:
        fields = {name: getattr(self, name) for name in Naive.__dataclass_fields__}
        return Naive(**{**fields, **changed})

    def datoms(self) -> list[Datom]:
        """What this view shows, in no promised order."""
        seen = [datom for datom in self.log if self.until(datom.tx)]
        if self.is_history:
            events = {(datom.tx, datom.added, *_key(datom)): datom for datom in seen}
            return [datom for datom in events.values() if self.after(datom.tx)]
        holding: dict[Any, Datom] = {}
        for datom in seen:
            if datom.a in self.many:
                holding.pop(_key(datom), None)
            else:  # the latest word counts: a view by instants may lack what came between
                for key in [key for key in holding if key[:2] == (datom.e, datom.a)]:
                    del holding[key]
            if datom.added:
                holding[_key(datom)] = datom
        return [datom for datom in holding.values() if self.after(datom.tx)]

    # reads -----------------------------------------------------------------------------------

    def values(self, e: int, attr: Keyword) -> list[Any]:
        return sorted((d.v for d in self.datoms() if d.e == e and d.a is attr), key=sort_key)

    def holders(self, attr: Keyword, value: Any) -> list[int]:
        key = value_key(value)
        return sorted({d.e for d in self.datoms() if d.a is attr and value_key(d.v) == key})

    def expand(self, operations: Iterable[tuple[Any, ...]], tx: int) -> list[Datom]:
        """The datoms that ``add``, ``retract`` and ``retract-entity`` operations make, in order."""
        facts = {_key(d): d for d in self._view(until=lambda _: True).datoms()}
        made: list[Datom] = []

        def retract(datom: Datom) -> None:
            del facts[_key(datom)]
            made.append(Datom(datom.e, datom.a, datom.v, tx, False))

        for kind, e, *rest in operations:
            if kind == "add":
                attr, value = rest
                datom = Datom(e, attr, value, tx, True)
                if _key(datom) in facts:
                    continue
                if attr not in self.many:
                    for old in [d for d in facts.values() if (d.e, d.a) == (e, attr)]:
                        retract(old)
                facts[_key(datom)] = datom
                made.append(datom)
            elif kind == "retract":
                key = (e, rest[0], value_key(rest[1]))
                if key in facts:
                    retract(facts[key])
            else:
                refs = rest[0]
                for old in list(facts.values()):
                    if old.e == e or (old.a in refs and old.v == e):
                        retract(old)
        return made


def _key(datom: Datom) -> tuple[int, Keyword, Any]:
    return (datom.e, datom.a, value_key(datom.v))


# --- queries -------------------------------------------------------------------------------------


def _is_variable(term: Any) -> bool:
    return isinstance(term, Symbol) and term.text.startswith("?")


def _variables(form: Any) -> set[Symbol]:
    if _is_variable(form):
        return {form}
    if isinstance(form, (list, tuple)):
        return set().union(*map(_variables, form))
    return set()


def _number_class(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _compare(name: str, left: Any, right: Any) -> bool:
    if name in ("=", "not="):
        return (value_key(left) == value_key(right)) == (name == "=")
    comparable = (_number_class(left) and _number_class(right)) or type(left) is type(right)
    if not comparable:
        return False
    test = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}[name]
    return bool(test(sort_key(left), sort_key(right)))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "str": lambda *parts: "".join(map(str, parts)),
}


class _Evaluation:
    def __init__(self, rows: dict[Symbol, list[tuple[Any, ...]]], rules: Rules) -> None:
        self.rows = rows
        self.rules = rules
        self.derived: dict[Symbol, dict[Any, tuple[Any, ...]]] = {name: {} for name in rules}
        self._fixpoint()

    def _fixpoint(self) -> None:
        growing = True
        while growing:
            growing = False
            for name, branches in self.rules.items():
                for head, body in branches:
                    for found in self.solve(body, {}):
                        row = tuple(found[variable] for variable in head)
                        if value_key(row) not in self.derived[name]:
                            self.derived[name][value_key(row)] = row
                            growing = True

    def solve(self, clauses: list[Any], binding: Binding) -> list[Binding]:
        """Every extension of ``binding`` that satisfies all clauses, without repetition."""
        found = [binding]
        rest = list(clauses)
        while rest:
            bound = set(found[0]) if found else set()
            clause = next((c for c in rest if self._ready(c, bound)), rest[0])
            rest.remove(clause)
            found = _distinct(more for b in found for more in self._step(clause, b))
            if not found:
                return []
        return found

    def _ready(self, clause: Any, bound: set[Symbol]) -> bool:
        if isinstance(clause, EdnList):
            return clause[0].text not in ("not", "not-join")
        if isinstance(clause[0], EdnList):
            return _variables(clause[0]) <= bound
        return True

    def _step(self, clause: Any, binding: Binding) -> Iterator[Binding]:
        if not isinstance(clause, EdnList):
            if isinstance(clause[0], EdnList):
                yield from self._call(clause, binding)
            else:
                yield from self._pattern(clause, binding)
            return
        name, *parts = clause
        if name.text == "not":
            if not self.solve(parts, binding):
                yield binding
        elif name.text == "not-join":
            shared, *inner = parts
            if not self.solve(inner, {v: binding[v] for v in shared if v in binding}):
                yield binding
        elif name.text == "or":
            for branch in parts:
                yield from self.solve(_branch(branch), binding)
        elif name.text == "or-join":
            shared, *branches = parts
            inside = {v: binding[v] for v in shared if v in binding}
            for branch in branches:
                for more in self.solve(_branch(branch), inside):
                    yield {**binding, **{v: more[v] for v in shared}}
        elif name.text == "and":
            yield from self.solve(parts, binding)
        else:
            for row in self.derived[name].values():
                yield from _unified(list(zip(parts, row, strict=True)), binding)

    def _pattern(self, clause: list[Any], binding: Binding) -> Iterator[Binding]:
        source = Symbol("$")
        if isinstance(clause[0], Symbol) and clause[0].text.startswith("$"):
            source, *clause = clause
        for row in self.rows[source]:
            if len(clause) <= len(row):
                yield from _unified(list(zip(clause, row, strict=False)), binding)

    def _call(self, clause: list[Any], binding: Binding) -> Iterator[Binding]:
        call, *result = clause
        name = call[0].text
        if name in ("missing?", "get-else"):
            e, attr = binding[call[2]], call[3]
            held = [row[2] for row in self.rows[call[1]] if row[0] == e and row[1] is attr]
            if result:
                yield from _unified([(result[0], held[0] if held else call[4])], binding)
            elif not held:
                yield binding
            return
        args = [binding[term] if _is_variable(term) else term for term in call[1:]]
        if not result:
            if _compare(name, *args):
                yield binding
        else:
            yield from _unified([(result[0], _FUNCTIONS[name](*args))], binding)


def _branch(branch: Any) -> list[Any]:
    if isinstance(branch, EdnList) and branch[0] == Symbol("and"):
        return list(branch[1:])
    return [branch]


def _unified(pairs: list[tuple[Any, Any]], binding: Binding) -> Iterator[Binding]:
    made = dict(binding)
    for term, value in pairs:
        if term == BLANK:
            continue
        if _is_variable(term):
            if term not in made:
                made[term] = value
            elif value_key(made[term]) != value_key(value):
                return
        elif value_key(term) != value_key(value):
            return
    yield made


def _distinct(bindings: Iterable[Binding]) -> list[Binding]:
    return list({value_key({str(k): v for k, v in b.items()}): b for b in bindings}.values())


_AGGREGATES: dict[str, Callable[[list[Any]], Any]] = {
    "count": len,
    "count-distinct": lambda values: len({value_key(v) for v in values}),
    "sum": sum,
    "min": lambda values: min(values, key=sort_key),
    "max": lambda values: max(values, key=sort_key),
    "avg": lambda values: sum(values) / len(values),
}


def read_rules(text: str) -> Rules:
    """Rules by name; each branch as its head's variables and its clauses."""
    rules: Rules = {}
    for head, *body in read(text):
        rules.setdefault(head[0], []).append((list(head[1:]), body))
    return rules


def q(text: str, *inputs: Any) -> set[Any]:
    """Keys (`value_key`) of the rows of a relation query over `Naive` values and plain inputs."""
    parts: dict[Keyword, list[Any]] = {}
    for form in read(text):
        if isinstance(form, Keyword):
            parts[form] = []
        else:
            parts[list(parts)[-1]].append(form)
    rows: dict[Symbol, list[tuple[Any, ...]]] = {}
    rules: Rules = {}
    start: list[Binding] = [{}]
    for name, given in zip(parts.get(K("in"), [Symbol("$")]), inputs, strict=True):
        if isinstance(given, Naive):
            rows[name] = [tuple(datom) for datom in given.datoms()]
        elif name == Symbol("%"):
            rules = read_rules(given)
        elif isinstance(name, list):
            start = [{**b, name[0]: value} for b in start for value in given]
        else:
            start = [{**b, name: given} for b in start]
    evaluation = _Evaluation(rows, rules)
    found = _distinct(b for s in start for b in evaluation.solve(parts[K("where")], s))
    find, extra = parts[K("find")], parts.get(K("with"), [])
    groups: dict[Any, list[Binding]] = {}
    plain = [term for term in find if not isinstance(term, EdnList)]
    named = [*sorted(set().union(*map(_variables, find)), key=str), *extra]
    for b in _distinct({v: b[v] for v in named} for b in found):
        groups.setdefault(value_key([b[term] for term in plain]), []).append(b)
    answer = set()
    for members in groups.values():
        row = []
        for term in find:
            if isinstance(term, EdnList):
                values = [b[term[1]] for b in members]
                row.append(_AGGREGATES[term[0].text](values))
            else:
                row.append(members[0][term])
        answer.add(value_key(row))
    return answer
