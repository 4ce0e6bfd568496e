"""Pull: trees of attribute values, following references as a pattern says.

Entities of one depth are read together, attribute by attribute, so that a pull of many entities
costs a few array operations a level, and depth costs no stack.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from natalog.core.database import Database
from natalog.core.errors import EntityIdSyntax, PullParse, QueryLimit, TransactSchema, ViewRefused
from natalog.core.garbage import GarbageWaits
from natalog.core.limits import PULL_DEPTH_MAX, PULL_ENTITIES_MAX, PULL_LIMIT_DEFAULT
from natalog.core.pull.fetch import (
    Wanted,
    attributes_many,
    holders_many,
    singles_many,
    values_many,
    values_of,
)
from natalog.core.pull.parse import (
    DB_ID,
    MISSING,
    UNBOUNDED,
    WILDCARD,
    Pattern,
    Spec,
    parse_pull,
)
from natalog.core.registry import EMPTY, Registry
from natalog.core.schema import Attribute
from natalog.core.values import Keyword

Result = dict[Any, Any]
_Path = tuple[int, Any] | None
"""The entities seen on the way here, the last first."""


def pull(db: Database, pattern: Any, eid: Any, *, functions: Registry = EMPTY) -> Result | None:
    """The attributes of one entity, named by its id, ident or lookup ref.

    None when nothing of the pattern is there.  ``functions`` holds those that ``:xform`` names.

    Raises `PullParse` for what is no pattern and a sub-pattern below an attribute that is no
    reference; `EntityIdMissing` for a lookup ref or ident of nothing; `TransactSchema` for an
    undeclared attribute where the schema is strict; `ViewRefused` on a history; `QueryLimit`.
    """
    parsed = parse_pull(pattern)
    if parsed.flat and not db.is_history:
        e = _entity(db, eid)
        found = _whole(db, e) if parsed.wildcard else _flat(db, parsed, e)
        if found is not None:
            return found or None
    return pull_many(db, parsed, (eid,), functions=functions)[0]


def _flat(db: Database, pattern: Pattern, e: int) -> Result | None:
    """The result of a pattern that follows nothing; None when it meets a component after all."""
    out: Result = {}
    for spec in pattern.specs:
        attribute = _attribute(db, spec.attr)
        values = values_of(db, e, spec.attr)
        if not values:
            if spec.default is not MISSING:
                out[spec.key] = spec.default
        elif attribute is None:
            out[spec.key] = values[0]
        elif attribute.is_ref:
            if attribute.component:
                return None
            shown = [{DB_ID: value} for value in values[: spec.limit]]
            out[spec.key] = shown if attribute.many else shown[0]
        else:
            out[spec.key] = list(values[: spec.limit]) if attribute.many else values[0]
    return out


def _whole(db: Database, e: int) -> Result | None:
    """All attributes; None when one of them is a component after all."""
    out: Result = {DB_ID: e}
    declared = db.schema.get
    for attr in db.attributes_ever(e):
        values = values_of(db, e, attr)
        if not values:
            continue
        attribute = declared(attr)
        if attribute is None:
            out[attr] = values[0]
        elif attribute.value_type != "ref":
            out[attr] = list(values[:PULL_LIMIT_DEFAULT]) if attribute.many else values[0]
        else:
            if attribute.component:
                return None
            shown = [{DB_ID: value} for value in values[:PULL_LIMIT_DEFAULT]]
            out[attr] = shown if attribute.many else shown[0]
    return out


def _attribute(db: Database, attr: Keyword) -> Attribute | None:
    attribute = db.schema.get(attr)
    if attribute is None and db.config.schema_flexibility == "write":
        raise TransactSchema(f"The attribute {attr} is not declared.", attribute=str(attr))
    return attribute


def pull_many(
    db: Database, pattern: Any, eids: Iterable[Any], *, functions: Registry = EMPTY
) -> list[Result | None]:
    """What `pull` returns for each of the entities, in the same positions."""
    parsed = parse_pull(pattern)
    if db.is_history:
        raise ViewRefused(
            "pull has no meaning on a history: an attribute has many values", view="history"
        )
    with GarbageWaits():  # it takes a sixth of the time of a pull that reaches many entities
        roots = [_Node(_entity(db, eid), None, {}) for eid in eids]
        _Run(db, functions).pull(parsed, roots)
        return [root.out or None for root in roots]


def _entity(db: Database, eid: Any) -> int:
    if eid is None:
        raise EntityIdSyntax("nil is no entity id.", entity=None)
    return db.entid_strict(eid)


class _Node:
    """One entity at one place of the result."""

    __slots__ = ("depths", "e", "found", "out", "path")

    def __init__(self, e: int, path: _Path, depths: dict[Keyword, int]) -> None:
        self.e = e
        self.out: Result = {}
        self.path = path
        self.depths = depths
        """How often each attribute was recursed into on the way here."""
        self.found = False
        """Whether the entity is known to have facts."""


class _Group:
    """Entities of one level that one pattern is pulled of, and what is found of each."""

    __slots__ = ("eids", "names_ids", "nodes", "outs", "pattern")

    def __init__(self, pattern: Pattern, nodes: list[_Node]) -> None:
        self.pattern = pattern
        self.nodes = nodes
        self.outs = [node.out for node in nodes]
        self.eids = Wanted([node.e for node in nodes])
        self.names_ids = any(spec.attr is DB_ID for spec in pattern.specs)
        """Whether it matters of which entities something was found."""

    def some(self, spots: list[int]) -> _Group:
        """The entities at some positions."""
        return _Group(self.pattern, [self.nodes[spot] for spot in spots])


def _put_singles(
    spec: Spec,
    attribute: Attribute | None,
    group: _Group,
    there: list[int] | None,
    values: list[Any],
) -> None:
    """What `_Run._spec` does where no entity has several values, nor a reference."""
    key, default = spec.key, spec.default
    outs = group.outs
    if there is not None:
        if default is not MISSING:
            for out in outs:
                out[key] = default
        outs = [outs[spot] for spot in there]
    if attribute is not None and attribute.many:
        values = [[value] for value in values]
    for out, value in zip(outs, values, strict=True):
        out[key] = value
    if group.names_ids:
        for node in group.nodes if there is None else [group.nodes[spot] for spot in there]:
            node.found = True


_Link = tuple[_Node, Spec, bool, list[_Node]]
"""A place in the result, whether it holds many, and the entities that belong there."""


class _Run:
    """One pull: reads level by level, then puts the results together from the last one."""

    def __init__(self, db: Database, functions: Registry) -> None:
        self.db = db
        self.functions = functions
        self.links: list[_Link] = []
        self.level: dict[int, tuple[Pattern, list[_Node]]] = {}
        self.entities = 0
        self.on_paths: set[int] = set()
        """Every entity that is on some path: others need no search along theirs."""

    def pull(self, pattern: Pattern, roots: list[_Node]) -> None:
        self._count(len(roots))
        self.level[id(pattern)] = (pattern, roots)
        depth = 0
        while self.level:
            depth += 1
            if depth > PULL_DEPTH_MAX:
                raise QueryLimit(
                    f"A pull goes deeper than {PULL_DEPTH_MAX} levels", limit=PULL_DEPTH_MAX
                )
            groups = list(self.level.values())
            self.level = {}
            for group in groups:
                self._expand(_Group(*group))
        for node, spec, many, children in reversed(self.links):
            results = [child.out for child in children if child.out]
            if many or results:
                node.out[spec.key] = self._shaped(spec, results if many else results[0])
            elif node.out.get(spec.key, MISSING) is None:
                del node.out[spec.key]

    def _count(self, more: int) -> None:
        self.entities += more
        if self.entities > PULL_ENTITIES_MAX:
            raise QueryLimit(
                f"A pull reaches more than {PULL_ENTITIES_MAX} entities", limit=PULL_ENTITIES_MAX
            )

    def _shaped(self, spec: Spec, value: Any) -> Any:
        if spec.xform is None:
            return value
        function = self.functions.get(spec.xform)
        if function is None:
            raise PullParse(f"{spec.xform} is not a registered function", function=spec.xform)
        return function(value)

    # --- one pattern over entities -----------------------------------------------------------

    def _expand(self, group: _Group) -> None:
        pattern = group.pattern
        if pattern.wildcard:
            self._expand_all(group)
            return
        for spec in pattern.specs:
            if spec.attr is DB_ID:
                for node in group.nodes:
                    node.out[DB_ID] = node.e
            else:
                self._spec(spec, group)
        if group.names_ids:
            for node in group.nodes:
                if not node.found and not self.db.has_entity(node.e):
                    del node.out[DB_ID]

    def _expand_all(self, group: _Group) -> None:
        pattern, nodes = group.pattern, group.nodes
        for node in nodes:
            node.out[DB_ID] = node.e
        special = pattern.forward
        for attr, spots in attributes_many(self.db, group.eids).items():
            having = group.some(spots) if len(spots) < len(nodes) else group
            for spec in special.get(attr) or (Spec(attr, attr, False, attr),):
                self._spec(spec, having)
        reverse = tuple(spec for spec in pattern.specs if spec.reverse)
        if reverse:
            # they start afresh: what was seen on the way here does not count for them
            only = Pattern(False, reverse)
            again = [_Node(node.e, None, {}) for node in nodes]
            for node, other in zip(nodes, again, strict=True):
                other.out = node.out
            self._expand(_Group(only, again))

    def _spec(self, spec: Spec, group: _Group) -> None:
        pattern, nodes, eids = group.pattern, group.nodes, group.eids
        attribute = _attribute(self.db, spec.attr)
        is_ref = attribute is not None and attribute.is_ref
        if spec.reverse:
            found = holders_many(self.db, eids, spec.attr) if is_ref else [()] * len(nodes)
        else:
            if not is_ref and (spec.sub is not None or spec.recursion is not None):
                self._refuse(spec, attribute, eids)
            if spec.sub is None and spec.recursion is None and not is_ref and spec.xform is None:
                singles = singles_many(self.db, eids, spec.attr)
                if singles is not None:
                    _put_singles(spec, attribute, group, *singles)
                    return
            found = values_many(self.db, eids, spec.attr)
        component = attribute is not None and attribute.component and is_ref
        many = not component if spec.reverse else attribute is not None and attribute.many
        follow = None
        if spec.sub is not None:
            follow = self._sub_pattern
        elif spec.recursion is not None:
            follow = self._recursion
        elif component and not spec.reverse:
            follow = self._component
        limit, default, key = spec.limit, spec.default, spec.key
        plain = follow is None and not is_ref and spec.xform is None
        if plain and default is MISSING and not group.names_ids:
            for out, values in zip(group.outs, found, strict=True):
                if values:
                    out[key] = list(values[:limit]) if many else values[0]
            return
        for node, values in zip(nodes, found, strict=True):
            if not values:
                if default is not MISSING:
                    node.out[key] = default
                continue
            if limit is not None and len(values) > limit:
                values = values[:limit]
            if not spec.reverse:
                node.found = True
            if follow is not None:
                follow(spec, pattern, node, values, many)
                continue
            if plain:
                node.out[key] = list(values) if many else values[0]
                continue
            shown = [{DB_ID: value} for value in values] if is_ref else list(values)
            node.out[key] = self._shaped(spec, shown if many else shown[0])

    def _refuse(self, spec: Spec, attribute: Attribute | None, eids: Wanted) -> None:
        if attribute is not None and attribute.value_type is not None:
            raise PullParse(
                f"The attribute {spec.attr} is no reference: nothing can be pulled below it",
                attribute=str(spec.attr),
            )
        if any(values_many(self.db, eids, spec.attr)):
            raise PullParse(
                f"The attribute {spec.attr} is not declared as a reference: nothing can be "
                "pulled below it",
                attribute=str(spec.attr),
            )

    # --- following references ----------------------------------------------------------------

    def _link(self, node: _Node, spec: Spec, many: bool, children: list[_Node]) -> None:
        # keeps the place of the key in the result until its value is known
        node.out[spec.key] = None
        self.links.append((node, spec, many, children))

    def _enqueue(self, pattern: Pattern, children: list[_Node]) -> None:
        self._count(len(children))
        group = self.level.get(id(pattern))
        if group is None:
            self.level[id(pattern)] = (pattern, list(children))
        else:
            group[1].extend(children)

    def _sub_pattern(
        self, spec: Spec, pattern: Pattern, node: _Node, values: Sequence[int], many: bool
    ) -> None:
        sub = spec.sub
        assert sub is not None
        if sub.wildcard:
            depths = {spec.name: 1}
            children = [_Node(e, self._step(e, None), depths) for e in values]
        else:
            children = [_Node(e, None, {}) for e in values]
        self._link(node, spec, many, children)
        self._enqueue(sub, children)

    def _recursion(
        self, spec: Spec, pattern: Pattern, node: _Node, values: Sequence[int], many: bool
    ) -> None:
        depth = node.depths.get(spec.name, 0)
        if spec.recursion != UNBOUNDED and depth >= (spec.recursion or 0):
            return
        depths = {**node.depths, spec.name: depth + 1}
        path = node.path
        if not pattern.wildcard and self.on_paths.isdisjoint(values):  # as everywhere in a tree
            self.on_paths.update(values)
            children = [_Node(e, (e, path), depths) for e in values]
            self._link(node, spec, many, children)
            self._enqueue(pattern, children)
            return
        children = []
        fresh: list[_Node] = []
        for e in values:
            # a wildcard stops at an entity that it is on the way of: below it come only ids
            if pattern.wildcard or self._seen(e, path):
                children.append(_seen_node(e))
            else:
                child = _Node(e, self._step(e, path), depths)
                children.append(child)
                fresh.append(child)
        self._link(node, spec, many, children)
        if fresh:
            self._enqueue(pattern, fresh)

    def _component(
        self, spec: Spec, pattern: Pattern, node: _Node, values: Sequence[int], many: bool
    ) -> None:
        path = self._step(node.e, node.path)
        depths = {**node.depths, spec.name: node.depths.get(spec.name, 0) + 1}
        children: list[_Node] = []
        fresh: list[_Node] = []
        for e in values:
            if self._seen(e, path):
                children.append(_seen_node(e))
            else:
                child = _Node(e, self._step(e, path), depths)
                children.append(child)
                fresh.append(child)
        self._link(node, spec, many, children)
        if fresh:
            self._enqueue(WILDCARD, fresh)

    def _step(self, e: int, path: _Path) -> _Path:
        self.on_paths.add(e)
        return (e, path)

    def _seen(self, e: int, path: _Path) -> bool:
        if e not in self.on_paths:
            return False
        while path is not None:
            if path[0] == e:
                return True
            path = path[1]
        return False


def _seen_node(e: int) -> _Node:
    node = _Node(e, None, {})
    node.out[DB_ID] = e
    return node
