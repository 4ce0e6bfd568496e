"""Erasure in a database of this process: what commits and reports keep of purged facts goes.

Nothing is stored, so there is nothing to rewrite: the commits' changes are made again without what
goes, and values that were kept are folded from them anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import numpy as np

from natalog.core.apply import apply_changes
from natalog.core.changes import Changes
from natalog.core.database import Database
from natalog.core.redaction import Wanted
from natalog.core.redaction.fold import Fact, fact_of, rows_of
from natalog.core.redaction.verdict import Verdict
from natalog.core.scrub import Scrub, meta_of, texts
from natalog.core.values import Datom, value_key
from natalog.core.versioning import CommitNode, forked
from natalog.report import TxReport


@dataclass(slots=True)
class Refolded:
    """The commits without what was erased; ``untold``: those whose values are not the old ones."""

    changes: dict[UUID, Changes] = field(default_factory=dict)
    kept: dict[UUID, Database] = field(default_factory=dict)
    untold: set[UUID] = field(default_factory=set)
    gone: dict[UUID, list[Datom]] = field(default_factory=dict)
    left: dict[UUID, list[Datom]] = field(default_factory=dict)

    @property
    def facts(self) -> int:
        return sum(map(len, self.gone.values()))


def judged(
    stored: Iterable[Changes], heads: Mapping[str, Database], wanted: Wanted
) -> tuple[Verdict, dict[str, int]]:
    """What goes, and by branch how many of the facts that were purged or are named it holds."""
    verdict = Verdict()
    forgetful = {
        attribute.ident
        for head in heads.values()
        for attribute in head.schema.attributes()
        if attribute.no_history
    }
    keeps_history = all(head.config.keep_history for head in heads.values())
    lost: list[Datom] = []
    for changes in stored:
        for purge in changes.purges:
            verdict.targets[purge.e, purge.attr, value_key(purge.value)] = purge.value
        for datom in changes.datoms:
            if not datom.added and (not keeps_history or datom.a in forgetful):
                lost.append(datom)
            if wanted.names(datom):
                verdict.targets[fact_of(datom)] = datom.v
    purged = {fact[0] for fact in verdict.targets}
    for datom in lost:  # see `natalog.core.redaction.survey.Survey.finish`
        if datom.e in purged or (not keeps_history and not wanted):
            verdict.targets[fact_of(datom)] = datom.v
    verdict.cells = {fact[:2] for fact in verdict.targets}
    return verdict, {name: verdict.hold(head) for name, head in heads.items()}


def refold(
    graph: Mapping[UUID, CommitNode],
    stored: Mapping[UUID, tuple[int, Changes]],
    kept: Mapping[UUID, Database],
    verdict: Verdict,
) -> Refolded:
    """Fold every commit twice, as it was and without what goes; parents come before children."""
    found = Refolded()
    differing: dict[UUID, set[Fact]] = {}
    old: dict[UUID, Database] = {}
    new: dict[UUID, Database] = {}
    for commit, node in graph.items():
        parent = node.parents[0] if node.parents else None
        if commit not in stored or parent not in old:
            old[commit] = kept[commit]
            new[commit] = verdict.without(kept[commit])
            touched: Iterable[Fact] = verdict.targets
            differing[commit] = set()
        else:
            lane, changes = stored[commit]
            before_old, before_new = old[parent], new[parent]
            if lane != before_old.lane:
                before_old, before_new = forked(before_old, lane), forked(before_new, lane)
            datoms, gone = verdict.split(before_new, changes.tx, changes.datoms, changes.purges)
            purges = [p for p in changes.purges if _there(before_new, datoms, p)]
            if gone or len(purges) != len(changes.purges):
                count = max(changes.purged, len(changes.purges))
                left = replace(changes, datoms=list(datoms), purges=purges, purged=count)
                found.gone[commit], found.left[commit] = gone, left.datoms
            else:
                left = changes
            found.changes[commit] = left
            old[commit] = apply_changes(before_old, changes, commit)
            new[commit] = apply_changes(before_new, left, commit)
            high = old[commit].max_eid  # ids of what is gone are not used again
            new[commit] = replace(new[commit], max_eid=high)
            touched = [fact_of(datom) for datom in changes.datoms]
            touched += [(p.e, p.attr, value_key(p.value)) for p in changes.purges]
            differing[commit] = set(differing[parent])
        for fact in touched:
            if fact not in verdict.targets:
                continue
            if _alike(old[commit], new[commit], fact, verdict.targets[fact]):
                differing[commit].discard(fact)
            else:
                differing[commit].add(fact)
        if differing[commit]:
            found.untold.add(commit)
        if commit in kept:
            found.kept[commit] = new[commit]
    return found


def redacted(report: TxReport, gone: list[Datom], left: list[Datom], scrub: Scrub) -> TxReport:
    """A report without what was erased."""
    meta = report.tx_meta
    about = {key: value for key, value in meta.items() if key.text != "db/txInstant"}
    told = [datom.v for datom in left if datom.e == report.tx]
    if scrub.meta_tells(about, told) or any(datom.e == report.tx for datom in gone):
        instant = {key: value for key, value in meta.items() if key not in about}
        meta = {**meta_of(report.tx, left), **instant}
    return replace(
        report,
        tx_data=left,
        tempids=dict(scrub.tempids(report.tempids, all_names=bool(gone))),
        tx_meta=meta,
        id=scrub.ident(report.id, texts(datom.v for datom in gone)),
        erased=report.erased + len(gone),
    )


def _there(before: Database, datoms: Iterable[Datom], purge: Any) -> bool:
    """Whether a purge still finds something."""
    fact: Fact = (purge.e, purge.attr, value_key(purge.value))
    return bool(rows_of(before, fact, purge.value).shape[1]) or any(
        fact_of(datom) == fact for datom in datoms
    )


def _alike(old: Database, new: Database, fact: Fact, value: Any) -> bool:
    return np.array_equal(rows_of(old, fact, value)[2:], rows_of(new, fact, value)[2:])
