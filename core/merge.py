"""Three-way merges: what the other side changed since the common base, and where both disagree.

Both sides are compared with the base entity by entity and attribute by attribute.  A value that
only one side changed is taken; values of many-valued attributes are joined as sets; what both
changed differently is a `Conflict`.  Entities that both sides created under one identity are
unified.  Nothing is overwritten unless a policy or a resolution says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from natalog.core.database import Database
from natalog.core.diff import diff
from natalog.core.errors import BadRequest, MergeConflict
from natalog.core.limits import TX_BASE
from natalog.core.schema import IDENT
from natalog.core.transact import process
from natalog.core.values import Datom, Keyword, sorted_values, value_key

POLICIES: Final = ("fail", "ours", "theirs")

ADD: Final = Keyword("db/add")
RETRACT: Final = Keyword("db/retract")
ID: Final = Keyword("db/id")

Place = tuple[int, Keyword]
"""An entity and an attribute."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Where the two sides of a merge disagree.

    ``kind``: ``"value"`` both changed a value, ``"unique"`` their value is taken by the entity
    ``holder`` of ours, ``"dangling"`` their reference points to what we removed (or ours to what
    they removed), ``"schema"`` the attribute is declared differently.  ``base``, ``ours`` and
    ``theirs`` are the values of the attribute of the entity, as lists.
    """

    kind: str
    entity: int
    attribute: Keyword
    base: list[Any]
    ours: list[Any]
    theirs: list[Any]
    holder: int | None = None

    def data(self) -> dict[str, Any]:
        """The conflict as plain values."""
        found = {
            "kind": self.kind,
            "entity": self.entity,
            "attribute": self.attribute,
            "base": self.base,
            "ours": self.ours,
            "theirs": self.theirs,
        }
        if self.holder is not None:
            found["holder"] = self.holder
        return found


@dataclass(slots=True)
class MergePlan:
    """What a merge would do: operations for our side, conflicts, and entities unified."""

    tx_data: list[Any] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    unified: dict[int, int] = field(default_factory=dict)
    """Their entity to ours, where both created one under the same identity."""

    def require_clean(self) -> None:
        """Raise `MergeConflict` with every conflict unless there is none."""
        if self.conflicts:
            first = self.conflicts[0]
            raise MergeConflict(
                f"The merge has {len(self.conflicts)} conflicts; the first is {first.attribute} of "
                f"entity {first.entity} ({first.kind}).",
                conflicts=[conflict.data() for conflict in self.conflicts],
            )


def plan_merge(
    base: Database,
    ours: Database,
    theirs: Database,
    policy: str = "fail",
    resolutions: Iterable[Mapping[str, Any]] = (),
) -> MergePlan:
    """What takes the changes of ``theirs`` since ``base`` over into ``ours``.

    ``resolutions`` are maps ``{entity, attribute, take}`` with ``take`` ``"ours"``, ``"theirs"``
    or ``"base"``, or ``{entity, attribute, value}``; they decide single conflicts before the
    policy does.  An entity is named by id, or by lookup ref or ident as ours knows it.  With policy
    ``fail`` the conflicts left are listed and nothing is decided.  Facts about transactions are not
    merged.  O(changes) beside the comparison of the three values.
    """
    if policy not in POLICIES:
        raise BadRequest(
            f"There is no merge policy {policy!r}; there are {', '.join(POLICIES)}.",
            policy=str(policy),
        )
    return _Merge(base, ours, theirs, policy, _decisions(resolutions, ours)).run()


def _decisions(
    resolutions: Iterable[Mapping[str, Any]], ours: Database
) -> dict[Place, Mapping[str, Any]]:
    found: dict[Place, Mapping[str, Any]] = {}
    for given in resolutions:
        try:
            resolution = {str(key).lstrip(":"): value for key, value in given.items()}
            name = resolution["attribute"]
            attr = name if isinstance(name, Keyword) else Keyword(str(name))
            entity = resolution["entity"]
        except (KeyError, AttributeError):
            raise BadRequest(
                "A resolution is a map of entity, attribute and take or value.",
                resolution=repr(given)[:200],
            ) from None
        if resolution.get("take") is not None:
            resolution["take"] = str(resolution["take"]).lstrip(":")
        take = resolution.get("take")
        if ("value" in resolution) == (take is not None) or (
            take is not None and take not in ("ours", "theirs", "base")
        ):
            raise BadRequest(
                "A resolution takes 'ours', 'theirs' or 'base', or gives a value.",
                resolution=repr(given)[:200],
            )
        # ids may be new to ours; whatever else names an entity names one of ours
        found[entity if type(entity) is int else ours.entid_strict(entity), attr] = resolution
    return found


class _Merge:
    """One merge being planned."""

    def __init__(
        self,
        base: Database,
        ours: Database,
        theirs: Database,
        policy: str,
        decisions: dict[Place, Mapping[str, Any]],
    ) -> None:
        self.base, self.ours, self.theirs = base, ours, theirs
        self.policy = policy
        self.decisions = decisions
        self.plan = MergePlan()
        self.retracts: list[Any] = []
        self.adds: list[tuple[int, Keyword, Any]] = []
        self.known: dict[int, int] = {}
        self.theirs_of: dict[int, int] = {}
        self.contested: set[int] = set()
        self._removed_by_us = _Removed(base, ours, {})
        self._removed_by_them = _Removed(base, theirs, self.theirs_of)
        declared = {attribute.ident: attribute for attribute in theirs.schema.attributes()}
        identities = {a for a, found in declared.items() if found.unique == "identity"}
        self.identities = sorted(identities | {IDENT}, key=lambda attr: attr.sort)

    def run(self) -> MergePlan:
        their_diff = diff(self.base, self.theirs)
        our_diff = diff(self.base, self.ours)
        places = sorted(_places(their_diff.added, their_diff.removed), key=_in_order)
        changed = {(self._entity(e), attr) for e, attr in places}
        changed |= self._removals(
            changed, {e for e, _ in _places(our_diff.added, our_diff.removed)}
        )
        self._check_schema(changed)
        for place in sorted(changed, key=_in_order):
            self._merge_place(place)
        self._check_references(our_diff.added)
        self.plan.tx_data = [*self.retracts, *self._additions()]
        if self.policy == "fail" and self.plan.conflicts:
            self.plan.tx_data = []
        return self.plan

    # --- entities ----------------------------------------------------------------------------

    def _entity(self, e: int) -> int:
        """What ours calls an entity of theirs or of the base.

        Branches that created one under the same identity go on to have two ids for it, in every
        merge to come.
        """
        found = self.known.get(e)
        if found is None:
            found = self.known[e] = self._identified(e)
            if found != e:
                self.plan.unified[e] = found
                self.theirs_of[found] = e
        return found

    def _identified(self, e: int) -> int:
        if e >= TX_BASE or self.ours.has_entity(e):
            return e
        for attr in self.identities:
            for value in (*self.base.values(e, attr), *self.theirs.values(e, attr)):
                if isinstance(value, tuple) and None in value:
                    continue  # a composite tuple that lacks parts names nobody
                for holder in self.ours.holders(attr, value):
                    if not self.theirs.has_entity(holder) and holder not in self.theirs_of:
                        return holder
        return e

    def _base_values(self, e: int, attr: Keyword) -> dict[Any, Any]:
        """What the base had of an entity of ours, as ours would say it."""
        other = self.theirs_of.get(e)
        if other is not None and not self.base.has_entity(e):
            e = other
        return _keyed(self._value(attr, value) for value in self.base.values(e, attr))

    def _their_values(self, e: int, attr: Keyword) -> dict[Any, Any]:
        """What they have of an entity of ours, as ours would say it."""
        values = self.theirs.values(self.theirs_of.get(e, e), attr)
        return _keyed(self._value(attr, value) for value in values)

    def _value(self, attr: Keyword, value: Any) -> Any:
        """A value of theirs as ours: references follow unified entities."""
        declared = self.theirs.schema.get(attr)
        if declared is not None and declared.is_ref and isinstance(value, int):
            return self._entity(value)
        return value

    def _check_schema(self, changed: set[Place]) -> None:
        for attr in sorted({attr for _, attr in changed}, key=lambda a: a.sort):
            ours, theirs = self.ours.schema.get(attr), self.theirs.schema.get(attr)
            if ours is None or theirs is None or ours.eid == 0:
                continue
            for what in ("value_type", "many", "unique"):
                left, right = getattr(ours, what), getattr(theirs, what)
                before = self.base.schema.get(attr)
                if left != right and (before is None or getattr(before, what) == left):
                    continue  # only they changed it, or it is a conflict of the declaring facts
                if left != right:
                    self.plan.conflicts.append(
                        Conflict("schema", ours.eid, attr, [], [_shown(left)], [_shown(right)])
                    )

    # --- places ------------------------------------------------------------------------------

    def _removals(self, theirs: set[Place], ours: set[int]) -> set[Place]:
        """Places of entities that one side removed while the other changed them.

        Half an entity is what nobody wanted: all that is left of it is to be decided.
        """
        by_us, by_them = self._removed_by_us, self._removed_by_them
        found: set[Place] = set()
        for e in {e for e, _ in theirs}:
            if e in by_us and self.theirs.has_entity(e):
                self.contested.add(e)
                found.update((e, attr) for attr in self.theirs.attributes_of(e))
            elif e in ours and e in by_them and self.ours.has_entity(e):
                self.contested.add(e)
                found.update((e, attr) for attr in self.ours.attributes_of(e))
        return found

    def _merge_place(self, place: Place) -> None:
        target, attr = place
        base, theirs = self._base_values(target, attr), self._their_values(target, attr)
        ours = _keyed(self.ours.values(target, attr))
        contested = target in self.contested
        if ours.keys() == theirs.keys() or (base.keys() == theirs.keys() and not contested):
            return
        if self._is_composite(attr):
            self._check_composite(target, attr, theirs)
            return
        if self._is_many(attr) and not contested:
            gone = [base[key] for key in base if key not in theirs and key in ours]
            new = [theirs[key] for key in theirs if key not in base and key not in ours]
            self._apply(target, attr, gone, new)
            return
        mine, others = list(ours.values()), list(theirs.values())
        if ours.keys() == base.keys() and not contested:
            self._apply(target, attr, mine, others)
            return
        self._conflict(
            Conflict("value", target, attr, _sorted(base), _sorted(ours), _sorted(theirs)),
            mine,
            others,
        )

    def _is_many(self, attr: Keyword) -> bool:
        declared = self.ours.schema.get(attr) or self.theirs.schema.get(attr)
        return declared is not None and declared.many

    def _is_composite(self, attr: Keyword) -> bool:
        declared = self.ours.schema.get(attr) or self.theirs.schema.get(attr)
        return declared is not None and declared.tuple_attrs is not None

    def _check_composite(self, e: int, attr: Keyword, theirs: dict[Any, Any]) -> None:
        """A composite tuple follows its parts, so nobody can decide about it alone."""
        for value in theirs.values():
            holders = self._takers(e, attr, value)
            if holders:
                self._report_clash(e, attr, value, holders[0])

    def _conflict(self, conflict: Conflict, ours: list[Any], theirs: list[Any]) -> None:
        """Decide a conflict by resolution or policy, or list it."""
        decision = self.decisions.get((conflict.entity, conflict.attribute))
        take = self.policy
        if decision is not None:
            if "value" in decision:
                value = decision["value"]
                wanted = value if isinstance(value, list) else [] if value is None else [value]
                self._apply(conflict.entity, conflict.attribute, ours, wanted)
                return
            take = str(decision["take"])
        if take == "theirs":
            self._apply(conflict.entity, conflict.attribute, ours, theirs)
        elif take == "base":
            self._apply(conflict.entity, conflict.attribute, ours, conflict.base)
        elif take == "fail":
            self.plan.conflicts.append(conflict)

    def _apply(self, e: int, attr: Keyword, gone: list[Any], new: list[Any]) -> None:
        kept = {value_key(value) for value in new}
        taken = [value for value in new if not self._clashes(e, attr, value)]
        if new and not taken and not self._is_many(attr):
            return  # the value stands that was to be replaced by one that cannot be had
        self.retracts.extend(
            [RETRACT, e, attr, value] for value in gone if value_key(value) not in kept
        )
        self.adds.extend((e, attr, value) for value in taken)

    def _taken(self, e: int, attr: Keyword) -> str:
        """Whose side a clash that no value can settle is decided for."""
        decision = self.decisions.get((e, attr))
        return self.policy if decision is None else str(decision.get("take", "fail"))

    # --- what a merge must not break -----------------------------------------------------------

    def _clashes(self, e: int, attr: Keyword, value: Any) -> bool:
        """Whether a unique value is taken by another entity of ours that keeps it."""
        holders = self._takers(e, attr, value)
        if not holders:
            return False
        take = self._taken(e, attr)
        if take == "theirs":
            self.retracts.append([RETRACT, holders[0], attr, value])
            return False
        if take == "fail":
            self._report_clash(e, attr, value, holders[0])
        return True

    def _takers(self, e: int, attr: Keyword, value: Any) -> list[int]:
        """The other entities of ours that hold a unique value and keep it."""
        declared = self.ours.schema.get(attr) or self.theirs.schema.get(attr)
        if declared is None or declared.unique is None:
            return []
        # they may have taken it from that entity themselves, which they then did not keep
        key = value_key(value)
        return [
            holder
            for holder in self.ours.holders(attr, value)
            if holder != e
            and (
                key not in self._base_values(holder, attr)
                or key in self._their_values(holder, attr)
            )
        ]

    def _report_clash(self, e: int, attr: Keyword, value: Any, holder: int) -> None:
        base, ours = _sorted(self._base_values(e, attr)), self.ours.values(e, attr)
        self.plan.conflicts.append(Conflict("unique", e, attr, base, ours, [value], holder))

    def _check_references(self, our_added: list[Datom]) -> None:
        """No reference may end up pointing to an entity that the other side removed."""
        removed_by_us = self._removed_by_us
        kept: list[tuple[int, Keyword, Any]] = []
        for e, attr, value in self.adds:
            if self._is_ref(attr) and value in removed_by_us and not self._revived(value):
                take = self._taken(e, attr)
                if take == "fail":
                    self.plan.conflicts.append(Conflict("dangling", e, attr, [], [], [value]))
                if take != "theirs":
                    continue
            kept.append((e, attr, value))
        self.adds = kept
        removed_by_them = self._removed_by_them
        for datom in our_added:
            if datom.e < TX_BASE and self._is_ref(datom.a) and datom.v in removed_by_them:
                take = self._taken(datom.e, datom.a)
                if take == "fail":
                    self.plan.conflicts.append(
                        Conflict("dangling", datom.e, datom.a, [], [datom.v], [])
                    )
                elif take != "ours":
                    self.retracts.append([RETRACT, datom.e, datom.a, datom.v])

    def _revived(self, e: int) -> bool:
        return any(added[0] == e for added in self.adds)

    def _is_ref(self, attr: Keyword) -> bool:
        declared = self.theirs.schema.get(attr) or self.ours.schema.get(attr)
        return declared is not None and declared.is_ref

    def _additions(self) -> list[Any]:
        """Additions, declarations of attributes first and whole, since facts may need them."""
        declaring = {e for e, attr, _ in self.adds if attr is IDENT}
        maps: dict[int, dict[Any, Any]] = {}
        rest: list[Any] = []
        for e, attr, value in self.adds:
            if e not in declaring:
                rest.append([ADD, e, attr, value])
                continue
            entry = maps.setdefault(e, {ID: e})
            if self._is_many(attr):
                entry.setdefault(attr, []).append(value)
            else:
                entry[attr] = value
        return [*maps.values(), *rest]


class _Removed:
    """The entities that the base has and a side has not: asked one by one, each once.

    ``moved``: those that the side has under another id.
    """

    def __init__(self, base: Database, side: Database, moved: Mapping[int, int]) -> None:
        self._base, self._side, self._moved = base, side, moved
        self._known: dict[Any, bool] = {}

    def __contains__(self, e: object) -> bool:
        if not isinstance(e, int):
            return False
        found = self._known.get(e)
        if found is None:
            gone = self._base.has_entity(e) and not self._side.has_entity(e)
            found = gone and e not in self._moved
            self._known[e] = found
        return found


def _places(*lists: list[Datom]) -> set[Place]:
    return {(datom.e, datom.a) for found in lists for datom in found if datom.e < TX_BASE}


def _in_order(place: Place) -> tuple[int, Any]:
    return place[0], place[1].sort


def _keyed(values: Iterable[Any]) -> dict[Any, Any]:
    return {value_key(value): value for value in values}


def _sorted(values: dict[Any, Any]) -> list[Any]:
    return sorted_values(values.values())


def virtual_base(root: Database, bases: Iterable[Database]) -> Database:
    """One base for a merge of histories that crossed: the bases merged into each other.

    ``root`` is what the bases themselves descend from.  Where they disagree the value of the root
    stands, so that the merge that asks sees a change on both sides.
    """
    found: Database | None = None
    for base in bases:
        if found is None:
            found = base
            continue
        plan = plan_merge(root, found, base, "fail")
        undecided = [
            {"entity": c.entity, "attribute": c.attribute, "take": "base"} for c in plan.conflicts
        ]
        tx_data = plan_merge(root, found, base, "ours", undecided).tx_data
        found = process(found, tx_data, now_ms=0).db_after
    assert found is not None
    return found


def _shown(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, str)) else str(value)
