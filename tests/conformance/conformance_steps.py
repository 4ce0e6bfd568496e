"""Running the steps of a scenario against a system (FORMAT.md, sections 1, 2 and 5)."""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import Callable, Mapping, Set
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

from conformance_compare import RECORDED_TX0, RECORDED_TX_MAX, Comparison, K, Outcome

from natalog.core.edn import write
from natalog.core.errors import BranchNotFound, NatalogError
from natalog.core.limits import TX_BASE
from natalog.core.values import (
    Doubles,
    EdnList,
    Float32,
    Floats,
    Int32,
    Keyword,
    Regex,
    Symbol,
    Tagged,
    instant_ms,
    make_set,
)

EPOCH_OF_SCENARIOS = datetime(2020, 1, 1, tzinfo=UTC)
_VIEWS = frozenset(
    {
        *(K("current"), K("as-of"), K("since"), K("history"), K("branch"), K("commit")),
        *(K("with"), K("valid-at"), K("valid-between"), K("valid-during"), K("valid-all")),
    }
)
_TX_TEXT = re.compile(r"(?<![\w.:/-])5368709\d\d\b|(?<![\w.:/-])53[67]\d{6}\b")


class Clock:
    """The transaction clock: milliseconds since 1970, set by hand or following the machine."""

    def __init__(self) -> None:
        self.ms: int | None = instant_ms(EPOCH_OF_SCENARIOS)

    def set(self, at: Any) -> None:
        """To an instant, or to the machine's time with ``:real``."""
        self.ms = None if at is K("real") else instant_ms(at)

    def __call__(self) -> int:
        return int(time.time() * 1000) if self.ms is None else self.ms


class System(Protocol):
    """What the runner needs of a system besides the verbs of a connection."""

    async def create(self, name: str, config: dict[str, Any]) -> None: ...

    async def drop(self, name: str) -> None: ...

    async def exists(self, name: str) -> bool: ...

    async def connect(self, name: str, branch: str) -> Any: ...

    async def q(self, db: Any, query: Any, inputs: list[Any], options: dict[str, Any]) -> Any: ...


class ScenarioError(Exception):
    """A step that cannot be run: it refers to a result that is not there."""


async def settled(value: Any) -> Any:
    """The value, awaited where the system is asynchronous."""
    return await value if inspect.isawaitable(value) else value


class Scenario:
    """One scenario on its way: databases, connections, results and commits."""

    def __init__(self, system: System, clock: Clock, prefix: str) -> None:
        self.system = system
        self.clock = clock
        self.prefix = prefix
        self.comparison = Comparison()
        self.results: list[Outcome] = []
        self.labelled: dict[Keyword, Outcome] = {}
        self.created: set[str] = set()
        self.connections: dict[tuple[str, str], Any] = {}
        self.lines: dict[tuple[str, str], list[int]] = {}
        clock.set(EPOCH_OF_SCENARIOS)

    async def run(self, step: dict[Any, Any]) -> Outcome:
        """Run one step; never raises."""
        op = step[K("op")].name
        handler = getattr(self, "_" + op.rstrip("?").replace("-", "_"), None)
        try:
            if handler is None:
                raise ScenarioError(f"the runner does not know the operation {op}")
            resolved = self._resolve(step, self._line(step))
            limit = step.get(K("timeout-ms"))
            doing = handler(resolved)
            got = await (doing if limit is None else asyncio.wait_for(doing, limit / 1000))
            outcome = Outcome(ok=got)
        except NatalogError as error:
            outcome = Outcome(error=error)
        except Exception as error:
            outcome = Outcome(crash=error)
        self.results.append(outcome)
        if K("as") in step:
            self.labelled[step[K("as")]] = outcome
        return outcome

    async def close(self) -> None:
        """Delete what the scenario created."""
        for name in self.created:
            try:
                await self.system.drop(name)
            except NatalogError:
                continue

    # --- names, labels, transaction ids --------------------------------------------------------

    def _name(self, step: Mapping[Any, Any]) -> str:
        name = step.get(K("name"), K("default"))
        return f"{self.prefix}-{re.sub('[^A-Za-z0-9]', '-', getattr(name, 'text', str(name)))}"

    def _branch_name(self, step: Mapping[Any, Any]) -> str:
        branch = step.get(K("branch"), K("db"))
        return branch.text if isinstance(branch, Keyword) else str(branch)

    def _line(self, step: Mapping[Any, Any]) -> list[int] | None:
        return self.lines.get((self._name(step), self._branch_name(step)))

    def _tx(self, number: int, line: list[int] | None) -> int:
        if not RECORDED_TX0 <= number <= RECORDED_TX_MAX:
            return number
        n = number - RECORDED_TX0
        if line is None or n == 0:
            return TX_BASE + n
        return line[n - 1] if n <= len(line) else (line[-1] if line else TX_BASE) + n - len(line)

    def _resolve(self, value: Any, line: list[int] | None) -> Any:
        """A part of a step with references, tags and transaction ids replaced."""
        match value:
            case bool():
                return value
            case int():
                return self._tx(value, line)
            case Tagged(tag, inner):
                return self._tag(tag, inner, line)
            case Regex() | str():
                return value
            case Mapping():
                if value.get(K("db")) in _VIEWS:
                    line = self._line(value) if K("branch") in value else line
                made = {self._resolve(k, line): self._resolve(v, line) for k, v in value.items()}
                if isinstance(made.get(K("query")), str):
                    made[K("query")] = _TX_TEXT.sub(
                        lambda found: str(self._tx(int(found[0]), line)), made[K("query")]
                    )
                return made
            case EdnList():
                return EdnList(self._resolve(item, line) for item in value)
            case tuple():
                return tuple(self._resolve(item, line) for item in value)
            case list():
                return [self._resolve(item, line) for item in value]
            case Set():
                return make_set(self._resolve(item, line) for item in value)
            case _:
                return value

    def _tag(self, tag: str, inner: Any, line: list[int] | None) -> Any:
        match tag:
            case "dh/ref":
                return self._reference(inner)
            case "dh/bytes":
                return bytes.fromhex(inner)
            case "dh/doubles":
                return Doubles(inner)
            case "dh/floats":
                return Floats(inner)
            case "dh/float":
                return Float32(inner)
            case "dh/int":
                return Int32(inner)
            case "dh/re":
                return Regex(inner)
            case "dh/db":
                return self._resolve(inner, line)
            case _:
                return Tagged(tag, self._resolve(inner, line))

    def _reference(self, path: Any) -> Any:
        where, *rest = path
        outcome = self.labelled.get(where) if isinstance(where, Keyword) else self.results[where]
        if outcome is None or outcome.failed:
            raise ScenarioError(f"the result {where} is not there")
        found = outcome.ok
        for key in rest:
            try:
                found = found[key]
            except (KeyError, IndexError, TypeError):
                raise ScenarioError(f"{path} leads nowhere") from None
        if isinstance(found, Set):
            return [list(row) if isinstance(row, tuple) else row for row in found]
        return found

    # --- connections and views -----------------------------------------------------------------

    async def _connection(self, step: Mapping[Any, Any], branch: str | None = None) -> Any:
        key = (self._name(step), branch or self._branch_name(step))
        if key not in self.connections:
            self.connections[key] = await self.system.connect(*key)
        return self.connections[key]

    def _forget(self, name: str, branch: str | None = None) -> None:
        for key in list(self.connections):
            if key[0] == name and branch in (None, key[1]):
                del self.connections[key]
        for key in list(self.lines):
            if key[0] == name and branch in (None, key[1]):
                del self.lines[key]

    async def _view(self, view: Any, step: Mapping[Any, Any]) -> Any:
        """The database value that ``view`` describes; None is the current one of the step."""
        if view is None:
            return await settled((await self._connection(step)).db())
        where = {key: step[key] for key in (K("name"), K("branch")) if key in step}
        where |= {key: view[key] for key in (K("name"), K("branch")) if key in view}
        kind = view[K("db")].name
        if kind == "commit":
            commit = view.get(K("commit"))
            connection = await self._connection(where)
            return await settled(connection.commit_db(commit))
        db = await self._view(view.get(K("of")), where)
        match kind:
            case "as-of":
                return await settled(db.as_of(_time_point(view)))
            case "since":
                return await settled(db.since(_time_point(view)))
            case "history":
                return await settled(db.history())
            case "with":
                return await settled(db.with_(view.get(K("tx-data"))))
            case "valid-at":
                return await settled(db.valid_at(view[K("at")]))
            case "valid-between" | "valid-during":
                verb = getattr(db, kind.replace("-", "_"))
                return await settled(verb(view[K("from")], view[K("to")]))
            case "valid-all":
                return await settled(db.valid_all())
            case _:
                return db

    async def _step_view(self, step: Mapping[Any, Any]) -> Any:
        return await self._view(step.get(K("view")), step)

    # --- databases -----------------------------------------------------------------------------

    async def _create(self, step: dict[Any, Any]) -> Any:
        name = self._name(step)
        if await self.system.exists(name):
            await self.system.drop(name)
        self._forget(name)
        self.clock.set(step.get(K("clock"), EPOCH_OF_SCENARIOS))
        config = {}
        for key, value in (step.get(K("config")) or {}).items():
            if key is not K("store"):
                option = key.text.rstrip("?").replace("-", "_")
                config[option] = value.text if isinstance(value, Keyword) else value
        self.created.add(name)
        await self.system.create(name, config)
        return await self._head(step)

    async def _head(self, step: Mapping[Any, Any]) -> dict[Any, Any]:
        info = await self._info(step)
        return {K("commit"): info.get("commit_id"), K("max-tx"): info.get("max_tx")}

    async def _info(self, step: Mapping[Any, Any], branch: str | None = None) -> dict[str, Any]:
        return dict(await settled((await self._connection(step, branch)).info()))

    async def _clock(self, step: dict[Any, Any]) -> Any:
        self.clock.set(step[K("at")])
        return True

    async def _exists(self, step: dict[Any, Any]) -> Any:
        return await self.system.exists(self._name(step))

    async def _delete_database(self, step: dict[Any, Any]) -> Any:
        await self.system.drop(self._name(step))
        self._forget(self._name(step))
        return True

    async def _release(self, step: dict[Any, Any]) -> Any:
        self._forget(self._name(step), self._branch_name(step))
        return True

    async def _reconnect(self, step: dict[Any, Any]) -> Any:
        self.connections.pop((self._name(step), self._branch_name(step)), None)
        return await self._head(step)

    async def _sleep(self, step: dict[Any, Any]) -> Any:
        await asyncio.sleep(step[K("ms")] / 1000)
        return True

    async def _db_info(self, step: dict[Any, Any]) -> Any:
        info = await self._info(step)
        config = info.get("config") or {}
        return {
            K("commit"): info.get("commit_id"),
            K("config"): {
                K("branch"): K(self._branch_name(step)),
                K("keep-history?"): config.get("keep_history"),
                K("schema-flexibility"): K(str(config.get("schema_flexibility"))),
            },
            K("datoms"): info.get("datoms"),
            K("max-eid"): info.get("max_eid"),
            K("max-tx"): info.get("max_tx"),
        }

    # --- transactions --------------------------------------------------------------------------

    async def _transact(self, step: dict[Any, Any]) -> Any:
        connection = await self._connection(step)
        report = await settled(connection.transact(step.get(K("tx-data")), step.get(K("tx-meta"))))
        return self._report(report, step)

    async def _with(self, step: dict[Any, Any]) -> Any:
        db = await self._step_view(step)
        report = await settled(db.with_report(step.get(K("tx-data")), step.get(K("tx-meta"))))
        return self._report(report, None)

    async def _load_entities(self, step: dict[Any, Any]) -> Any:
        connection = await self._connection(step)
        return self._report(await settled(connection.load_entities(step[K("entities")])), step)

    def _report(self, report: Any, step: Mapping[Any, Any] | None) -> dict[Any, Any]:
        facts = [tuple(datom) for datom in report.tx_data]
        made = {
            K("datoms"): make_set(
                (e, a, v, added)
                for e, a, v, _, added in facts
                if not (e == report.tx and a is K("db/txInstant"))
            ),
            K("instant"): report.instant,
            K("tempids"): {K("db/current-tx"): report.tx, **report.tempids},
            K("tx"): report.tx,
            K("tx-data"): [list(fact) for fact in facts],
        }
        if step is not None:
            made[K("commit")] = report.commit_id
            line = self._line(step)
            if line is not None:
                line.append(report.tx)
        return made

    # --- reads ---------------------------------------------------------------------------------

    async def _q(self, step: dict[Any, Any]) -> Any:
        queried = []
        inputs = []
        for one in step[K("args")] if K("args") in step else [{K("db"): K("current")}]:
            if isinstance(one, dict) and one.get(K("db")) in _VIEWS:
                inputs.append(await self._view(one, step))
                queried.append(inputs[-1])
            else:
                inputs.append(one)
        options: dict[str, Any] = {}
        if K("order-by") in step:
            options["order_by"] = _as_text(step[K("order-by")])
        for key in ("limit", "offset"):
            number = step.get(K(key))
            if number is not None and not (key == "limit" and _negative(number)):
                options[key] = number
        if K("timeout-ms") in step:
            options["timeout"] = step[K("timeout-ms")] / 1000
        # asked of the first database among the inputs, with exactly these inputs
        named = queried[0] if queried else await self._view(None, step)
        return await self.system.q(named, step[K("query")], inputs, options)

    async def _pull(self, step: dict[Any, Any]) -> Any:
        db = await self._step_view(step)
        return await settled(db.pull(_as_text(step.get(K("pattern"))), step.get(K("eid"))))

    async def _pull_many(self, step: dict[Any, Any]) -> Any:
        db = await self._step_view(step)
        found = await settled(db.pull_many(_as_text(step.get(K("pattern"))), step.get(K("eids"))))
        return [one for one in found if one is not None]

    async def _entity(self, step: dict[Any, Any]) -> Any:
        db = await self._step_view(step)
        return await settled(db.entity(step.get(K("eid"))))

    async def _datoms(self, step: dict[Any, Any]) -> Any:
        db = await self._step_view(step)
        return await self._index_read(step, db.datoms)

    async def _seek_datoms(self, step: dict[Any, Any]) -> Any:
        db = await self._step_view(step)
        return await self._index_read(step, db.seek_datoms)

    async def _rseek_datoms(self, step: dict[Any, Any]) -> Any:
        db = await self._step_view(step)
        return await self._index_read(step, db.rseek_datoms)

    async def _index_read(self, step: dict[Any, Any], verb: Callable[..., Any]) -> Any:
        index = step[K("index")]
        name = index.text if isinstance(index, Keyword) else index
        found = await settled(
            verb(name, *(step.get(K("components")) or ()), limit=step.get(K("limit")))
        )
        return [list(datom) for datom in found]

    async def _index_range(self, step: dict[Any, Any]) -> Any:
        db = await self._step_view(step)
        found = await settled(
            db.index_range(step[K("attrid")], step.get(K("start")), step.get(K("end")))
        )
        return [list(datom) for datom in found]

    async def _schema(self, step: dict[Any, Any]) -> Any:
        return await settled((await self._step_view(step)).schema())

    async def _reverse_schema(self, step: dict[Any, Any]) -> Any:
        return await settled((await self._step_view(step)).schema(reverse=True))

    async def _metrics(self, step: dict[Any, Any]) -> Any:
        return await settled((await self._step_view(step)).metrics())

    # --- branches and commits ------------------------------------------------------------------

    async def _branches(self, step: dict[Any, Any]) -> Any:
        connection = await self._connection(step, "db")
        return {K(name) for name in await settled(connection.branches())}

    async def _branch(self, step: dict[Any, Any]) -> Any:
        name, source, target = self._name(step), step.get(K("from")), step.get(K("to"))
        connection = await self._connection(step, "db")
        await settled(connection.branch(_text(target), from_=_text(source)))
        self._forget(name, _text(target))
        if isinstance(source, Keyword):
            self.lines[name, _text(target)] = await self._line_of(step, source.text)
        return await self._branches(step)

    async def _line_of(self, step: Mapping[Any, Any], branch: str) -> list[int]:
        name = self._name(step)
        if (name, branch) in self.lines:
            return list(self.lines[name, branch])
        head = (await self._info(step, branch)).get("max_tx") or TX_BASE
        return list(range(TX_BASE + 1, head + 1)) if head - TX_BASE < 10_000 else []

    async def _delete_branch(self, step: dict[Any, Any]) -> Any:
        connection = await self._connection(step, "db")
        await settled(connection.delete_branch(self._branch_name(step)))
        self._forget(self._name(step), self._branch_name(step))
        return await self._branches(step)

    async def _force_branch(self, step: dict[Any, Any]) -> Any:
        name = self._branch_name(step)
        main = {key: value for key, value in step.items() if key is not K("branch")}
        connection = await self._connection(main)
        db = await self._view(step.get(K("view")), main)
        parents = [_text(parent) for parent in step.get(K("parents")) or ()]
        await settled(connection.force_branch(name, db, parents=parents))
        self._forget(self._name(step), name)
        info = await self._info(step)
        return {K("branches"): await self._branches(step), K("commit"): info.get("commit_id")}

    async def _merge(self, step: dict[Any, Any]) -> Any:
        connection = await self._connection(step)
        parents = [_text(parent) for parent in step.get(K("parents")) or ()]
        report = await settled(
            connection.merge(parents, step.get(K("tx-data")), step.get(K("tx-meta")))
        )
        return self._report(report, step)

    async def _commit_id(self, step: dict[Any, Any]) -> Any:
        view = step.get(K("view"))
        db = await self._view(view, step)
        if hasattr(db, "commit_id"):
            return db.commit_id
        if view is not None and view[K("db")] is K("commit"):
            return view[K("commit")]
        if view is not None and view[K("db")] is K("with"):
            return None
        return (await self._info(step, self._branch_name(view or step))).get("commit_id")

    async def _parents(self, step: dict[Any, Any]) -> Any:
        commit = await self._commit_id(step)
        for entry in await settled((await self._connection(step)).branch_history()):
            if entry.commit_id == commit:
                return set(entry.parents)
        raise BranchNotFound(f"no commit {commit} in the history", commit=str(commit))

    async def _history(self, step: dict[Any, Any]) -> Any:
        found = await settled((await self._connection(step)).branch_history())
        return [
            {
                K("commit"): entry.commit_id,
                K("parents"): set(entry.parents),
                K("max-tx"): TX_BASE if entry.tx is None else entry.tx,
            }
            for entry in found
        ]

    async def _gc(self, step: dict[Any, Any]) -> Any:
        before = step.get(K("before"))
        if before is K("now"):
            before = datetime.now(UTC)
        await settled((await self._connection(step, "db")).gc(before))
        return {K("removed"): K("dh/any")}


def _negative(number: Any) -> bool:
    return isinstance(number, int) and number < 0


def _time_point(view: Mapping[Any, Any]) -> Any:
    return view[K("tx")] if K("tx") in view else view.get(K("instant"))


def _as_text(value: Any) -> Any:
    """A string of a step where the interface reads strings as EDN: the text of the string."""
    return write(value) if isinstance(value, str) else value


def _text(name: Any) -> Any:
    """A branch keyword as a name; commit ids as they are."""
    if isinstance(name, (UUID, int)) or name is None:
        return name
    return name.text if isinstance(name, (Keyword, Symbol)) else name
