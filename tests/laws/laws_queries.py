"""Random queries over the schema of `laws_data`, as EDN text that both sides understand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from laws_data import ENTITIES, MANY, REFS, VALUES

from natalog.core.edn import write
from natalog.core.values import Keyword

K = Keyword
NUMBERS = (K("age"), K("score"))
RULES = """
[[(above ?x ?y) [?x :boss ?y]]
 [(above ?x ?y) [?x :boss ?z] (above ?z ?y)]
 [(linked ?x ?y) [?x :friend ?y]]
 [(linked ?x ?y) [?y :friend ?x]]
 [(known ?x) [?x :name]]
 [(known ?x) [?x :tag :a]]
 [(known ?x) (linked ?x ?y) (known ?y)]]
"""


@dataclass(frozen=True)
class Drawn:
    """A query, the variables it binds, and whether it needs rules."""

    clauses: tuple[str, ...]
    variables: tuple[str, ...]
    numbers: tuple[str, ...]


@st.composite
def bodies(draw: Any, history: bool = False) -> Drawn:
    """Clauses that bind every variable they use."""
    clauses: list[str] = []
    entities: list[str] = []
    values: dict[str, Keyword] = {}
    extra: list[str] = []

    def entity(fresh: bool = True) -> str:
        pool = [*entities, *(["?a", "?b", "?c"][: len(entities) + 1] if fresh else [])]
        name: str = draw(st.sampled_from(pool))
        if name not in entities:
            entities.append(name)
        return name

    def constant(attr: Keyword) -> str:
        return write(draw(st.sampled_from(VALUES[attr])))

    def pattern() -> str:
        attr = draw(st.sampled_from(sorted(VALUES, key=str)))
        e = entity()
        shape = draw(st.sampled_from(["variable", "variable", "constant", "blank", "tx"]))
        if shape == "constant":
            return f"[{e} {attr} {constant(attr)}]"
        if shape == "blank":
            return f"[{e} {attr}]"
        if attr in REFS:
            term = entity()
        else:
            known = [name for name, of in values.items() if of is attr]
            term = draw(st.sampled_from([*known, f"?v{len(values)}"]))
            values.setdefault(term, attr)
        if shape == "tx":
            tx = draw(st.sampled_from(["?t", "?u"]))
            extra.append(tx)
            op = ""
            if history:
                op = draw(st.sampled_from(["", " ?op", " true", " false"]))
                extra.extend(["?op"] if op == " ?op" else [])
            return f"[{e} {attr} {term} {tx}{op}]"
        return f"[{e} {attr} {term}]"

    for _ in range(draw(st.integers(1, 3))):
        clauses.append(pattern())
    for kind in draw(
        st.lists(
            st.sampled_from(["predicate", "equal", "not", "or", "or-join", "rule", "call", "any"]),
            max_size=2,
        )
    ):
        numbers = [name for name, of in values.items() if of in NUMBERS]
        if kind == "predicate" and numbers:
            op = draw(st.sampled_from(["<", "<=", ">", ">=", "=", "not="]))
            right = draw(st.sampled_from([*numbers, "1", "7", "1.0", "7.5"]))
            clauses.append(f"[({op} {draw(st.sampled_from(numbers))} {right})]")
        elif kind == "equal" and values:
            name = draw(st.sampled_from(sorted(values)))
            clauses.append(
                f"[({draw(st.sampled_from(['=', 'not=']))} {name} {constant(values[name])})]"
            )
        elif kind == "not" and entities:
            attr = draw(st.sampled_from(sorted(VALUES, key=str)))
            term = draw(st.sampled_from(["_", constant(attr)]))
            clauses.append(f"(not [{entity(fresh=False)} {attr} {term}])")
        elif kind == "or":
            e = entity()
            branches = [
                f"[{e} {attr} {constant(attr)}]"
                for attr in draw(
                    st.lists(st.sampled_from(sorted(VALUES, key=str)), min_size=1, max_size=3)
                )
            ]
            clauses.append(f"(or {' '.join(branches)})")
        elif kind == "or-join":
            e = entity()
            attrs = draw(st.lists(st.sampled_from(sorted(REFS, key=str)), min_size=1, max_size=2))
            inner = " ".join(f"(and [{e} {attr} ?j] [?j :name ?k])" for attr in attrs)
            clauses.append(f"(or-join [{e}] {inner} [{e} :active true])")
        elif kind == "rule":
            name = draw(st.sampled_from(["above", "linked", "known"]))
            args = entity() if name == "known" else f"{entity()} {entity()}"
            clauses.append(f"({name} {args})")
        elif kind == "call" and numbers:
            name = draw(st.sampled_from(numbers))
            clauses.append(
                f"[({draw(st.sampled_from(['+', '-', '*']))} {name} {name}) ?r{len(extra)}]"
            )
            extra.append(f"?r{len(extra)}")
        elif kind == "any" and entities:
            clauses.append(f"[{entity(fresh=False)} ?attr]")
            extra.append("?attr")
    order = draw(st.permutations(range(len(clauses))))
    found = tuple(dict.fromkeys([*entities, *values, *extra]))
    numbers = tuple(name for name, of in values.items() if of in NUMBERS)
    return Drawn(tuple(clauses[at] for at in order), found, numbers)


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
