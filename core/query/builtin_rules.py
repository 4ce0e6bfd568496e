"""Rules that every query may call without passing any: valid time and relations of intervals.

A rule of the same name among a query's own rules takes its place.  Intervals are half open,
``[from, to)``; a transaction without ``:db.valid/to`` is valid for ever.
"""

from __future__ import annotations

from functools import cache

from natalog.core.query.ast import Rules
from natalog.core.query.parse_rules import parse_rules

_END = '#inst "9999-12-31T23:59:59.999-00:00"'

_VALID_TIME = f"""
[[(valid-at ?tx ?at)
  [?tx :db.valid/from ?from] [(get-else $ ?tx :db.valid/to {_END}) ?to]
  [(<= ?from ?at)] [(> ?to ?at)]]
 [(valid-between ?tx ?start ?end)
  [?tx :db.valid/from ?from] [(get-else $ ?tx :db.valid/to {_END}) ?to]
  [(< ?from ?end)] [(> ?to ?start)]]
 [(valid-during ?tx ?start ?end)
  [?tx :db.valid/from ?from] [(get-else $ ?tx :db.valid/to {_END}) ?to]
  [(>= ?from ?start)] [(<= ?to ?end)]]
 [(period-overlaps? ?tx ?start ?end) (valid-between ?tx ?start ?end)]]
"""

# name -> conditions on the intervals [?a, ?b) and [?c, ?d)
_INTERVALS: dict[str, str] = {
    "overlaps?": "[(< ?a ?d)] [(< ?c ?b)]",
    "equals?": "[(= ?a ?c)] [(= ?b ?d)]",
    "contains?": "[(<= ?a ?c)] [(>= ?b ?d)]",
    "strictly-contains?": "[(< ?a ?c)] [(> ?b ?d)]",
    "precedes?": "[(<= ?b ?c)]",
    "strictly-precedes?": "[(< ?b ?c)]",
    "immediately-precedes?": "[(= ?b ?c)]",
    "succeeds?": "[(>= ?a ?d)]",
    "strictly-succeeds?": "[(> ?a ?d)]",
    "immediately-succeeds?": "[(= ?a ?d)]",
    "meets?": "[(= ?b ?c)]",
    "starts?": "[(= ?a ?c)] [(< ?b ?d)]",
    "started-by?": "[(= ?a ?c)] [(> ?b ?d)]",
    "finishes?": "[(= ?b ?d)] [(> ?a ?c)]",
    "finished-by?": "[(= ?b ?d)] [(< ?a ?c)]",
}

# every parameter of a rule occurs in its body; these say nothing and are always true
_MENTION = "[(identity ?a) _] [(identity ?b) _] [(identity ?c) _] [(identity ?d) _]"


@cache
def builtin_rules() -> Rules:
    """The built-in rules by name, parsed once."""
    intervals = " ".join(
        f"[(interval-{name} [?a ?b ?c ?d]) {conditions} {_MENTION}]"
        for name, conditions in _INTERVALS.items()
    )
    return {**parse_rules(_VALID_TIME), **parse_rules(f"[{intervals}]")}


def with_builtins(rules: Rules) -> Rules:
    """``rules`` and the built-in ones that they do not redefine."""
    return {**builtin_rules(), **rules}
