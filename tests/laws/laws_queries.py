"""Random queries over the schema of `laws_data`, as EDN text that both sides understand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from laws_data import ENTITIES, MANY, REFS, VALUES

from natalog.core.edn import write
from natalog.core.values import Keyword

K = Keyword
NUMBERS = (K("age"), K("score"))
ONE = sorted({*VALUES} - MANY, key=str)
RULES = """
[[(above ?x ?y) [?x :boss ?y]]
 [(above ?x ?y) [?x :boss ?z] (above ?z ?y)]
 [(linked ?x ?y) [?x :friend ?y]]
 [(linked ?x ?y) [?y :friend ?x]]
 [(known ?x) [?x :name]]
 [(known ?x) [?x :tag :a]]
 [(known ?x) (linked ?x ?y) (known ?y)]]
"""


ATTRIBUTES = sorted(VALUES, key=str)
PREDICATES = ("<", "<=", ">", ">=", "=", "not=")


@dataclass
class Body:
    """Clauses that bind every variable they use, drawn one after the other.

    ``entities``, ``values`` (with an attribute whose values they have) and ``extra``: variables.
    """

    draw: Any
    history: bool
    clauses: list[str] = field(default_factory=list)
    entities: list[str] = field(default_factory=list)
    values: dict[str, Keyword] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)

    @property
    def variables(self) -> list[str]:
        return list(dict.fromkeys([*self.entities, *self.values, *self.extra]))

    @property
    def numbers(self) -> list[str]:
        return [name for name, attr in self.values.items() if attr in NUMBERS]

    def pick(self, choices: Any) -> Any:
        return self.draw(st.sampled_from(list(choices)))

    def entity(self) -> str:
        """A variable for an entity, old or new."""
        name: str = self.pick([*self.entities, *["?a", "?b", "?c"][: len(self.entities) + 1]])
        if name not in self.entities:
            self.entities.append(name)
        return name

    def constant(self, attr: Keyword) -> str:
        return write(self.pick(VALUES[attr]))

    # clauses ---------------------------------------------------------------------------------

    def pattern(self) -> str:
        attr = self.pick(ATTRIBUTES)
        e = self.pick(ENTITIES) if self.pick(range(8)) == 0 else self.entity()
        shape = self.pick(["variable", "variable", "variable", "constant", "blank", "tx", "join"])
        if shape == "constant":
            return f"[{e} {attr} {self.constant(attr)}]"
        if shape == "blank":
            return f"[{e} {attr}]"
        if shape == "join" and self.variables:
            # any variable, so that columns of different kinds meet
            return f"[{e} {attr} {self.pick(self.variables)}]"
        if attr in REFS:
            term = self.entity()
        else:
            known = [name for name, of in self.values.items() if of is attr]
            term = self.pick([*known, f"?v{len(self.values)}"])
            self.values.setdefault(term, attr)
        if shape != "tx":
            return f"[{e} {attr} {term}]"
        tx = self.pick(["?t", "?u"])
        op = self.pick(["", " ?op", " true", " false"]) if self.history else ""
        self.extra += [tx, "?op"] if op == " ?op" else [tx]
        return f"[{e} {attr} {term} {tx}{op}]"

    def any_attribute(self) -> str:
        self.extra.append("?attr")
        if self.pick([True, False]):
            return f"[{self.entity()} ?attr]"
        term = self.pick([*self.variables, "?x"])
        if term == "?x":
            self.extra.append("?x")
        return f"[{self.entity()} ?attr {term}]"

    def predicate(self) -> str:
        if not self.numbers:
            return self.equality()
        right = self.pick([*self.numbers, "1", "7", "1.0", "7.5"])
        return f"[({self.pick(PREDICATES)} {self.pick(self.numbers)} {right})]"

    def equality(self) -> str:
        if not self.values:
            return self.pattern()
        name = self.pick(sorted(self.values))
        right = self.pick([self.constant(self.values[name]), *self.variables])
        return f"[({self.pick(PREDICATES)} {name} {right})]"

    def negation(self) -> str:
        if not self.variables:
            return self.pattern()
        e, attr = self.pick(self.entities or self.variables), self.pick(ATTRIBUTES)
        match self.pick(range(5)):
            case 0:
                return f"(not [{e} {attr} {self.constant(attr)}])"
            case 1:
                return f"(not [{e} {attr} {self.pick(self.variables)}])"
            case 2:
                return f"(not [{e} {attr}] (not [{e} {self.pick(ATTRIBUTES)}]))"
            case 3:
                ref = self.pick(sorted(REFS, key=str))
                return f"(not-join [{e}] [{e} {ref} ?n] [?n {attr} ?m])"
            case _:
                return f"(not [{e} {attr}])"

    def alternatives(self) -> str:
        e = self.entity()
        if self.pick([True, False]):
            attrs = self.draw(st.lists(st.sampled_from(ATTRIBUTES), min_size=1, max_size=3))
            return f"(or {' '.join(f'[{e} {attr} {self.constant(attr)}]' for attr in attrs)})"
        refs = self.draw(st.lists(st.sampled_from(sorted(REFS, key=str)), min_size=1, max_size=2))
        inner = " ".join(f"(and [{e} {attr} ?j] [?j :name ?k])" for attr in refs)
        return f"(or-join [{e}] {inner} [{e} :active true])"

    def rule(self) -> str:
        name = self.pick(["above", "linked", "known"])
        if name == "known":
            return f"(known {self.entity()})"
        right = self.pick(ENTITIES) if self.pick(range(4)) == 0 else self.entity()
        return f"({name} {self.entity()} {right})"

    def computation(self) -> str:
        made = f"?r{len(self.extra)}"
        if self.pick([True, False]):
            # a variable of its own: joined with another class, arithmetic could rightly fail
            own = f"?n{len(self.extra)}"
            self.clauses.append(f"[{self.entity()} {self.pick(NUMBERS)} {own}]")
            clause = f"[({self.pick('+-*')} {own} {own}) {made}]"
        elif self.entities:
            e, attr = self.pick(self.entities), self.pick(ONE)
            if self.pick([True, False]):
                return f"[(missing? $ {e} {attr})]"
            clause = f"[(get-else $ {e} {attr} {self.constant(attr)}) {made}]"
        else:
            return self.pattern()
        self.extra.append(made)
        return clause


@st.composite
def bodies(draw: Any, history: bool = False) -> Body:
    """One to three patterns and up to three further clauses, in any order."""
    body = Body(draw, history)
    for _ in range(draw(st.integers(1, 3))):
        body.clauses.append(body.pattern())
    if not body.variables:
        body.clauses.append(f"[{body.entity()} :name]")
    further = [
        *(body.predicate, body.negation, body.alternatives, body.rule, body.equality),
        *([] if history else [body.computation]),
        body.any_attribute,
    ]
    for make in draw(st.lists(st.sampled_from(further), max_size=3)):
        body.clauses.append(make())
    body.clauses = draw(st.permutations(body.clauses))
    return body


@st.composite
def relations(draw: Any, history: bool = False) -> str:
    """A query for rows of some of its variables."""
    body = draw(bodies(history))
    names = draw(st.lists(st.sampled_from(body.variables), min_size=1, max_size=3, unique=True))
    return f"[:find {' '.join(names)} :in $ % :where {' '.join(body.clauses)}]"


@st.composite
def aggregates(draw: Any) -> str:
    """A query with an aggregate, grouped by at most one variable."""
    body = draw(bodies())
    names = draw(st.lists(st.sampled_from(body.variables), max_size=1))
    ages = [name for name in body.numbers if name not in names]
    name = draw(st.sampled_from(["count", "count-distinct", "min", "max", "sum", "avg"]))
    if name in ("count", "count-distinct") or not ages:
        name = name if name.startswith("count") else "count"
        over = draw(
            st.sampled_from([v for v in body.variables if v not in names] or body.variables)
        )
    else:
        over = draw(st.sampled_from(ages))
    rest = [v for v in body.variables if v not in (*names, over)]
    extra = draw(st.lists(st.sampled_from(rest), max_size=1)) if rest else []
    with_ = f" :with {extra[0]}" if extra else ""
    return (
        f"[:find {' '.join([*names, f'({name} {over})'])}{with_} "
        f":in $ % :where {' '.join(body.clauses)}]"
    )


__all__ = ["ENTITIES", "MANY", "RULES", "aggregates", "relations"]
