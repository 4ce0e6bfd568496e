"""Datalog queries over database values.

>>> from natalog.core.query import q
>>> q("[:find ?x :in [?x ...] :where [(> ?x 1)]]", [1, 2, 3]).python() == {(2,), (3,)}
True
"""

from natalog.core.query.engine import explain, q
from natalog.core.query.plan import Plan
from natalog.core.query.result import QueryResult

__all__ = ["Plan", "QueryResult", "explain", "q"]
