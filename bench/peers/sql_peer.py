"""The same questions in SQL written by hand: what many would use instead of a Datalog database.

    python sql_peer.py sqlite|duckdb TASK.json

SQLite holds facts (entity, attribute, value) with an index by entity and one by value; DuckDB holds
wide tables.  Both are in memory.  Prints a JSON line for each workload.
"""

from __future__ import annotations

import gc
import json
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import answer

Rows = list[tuple[Any, ...]]

# --- SQLite: facts -------------------------------------------------------------------------------

_REACHED = """with recursive reached(n) as (
    select t.v from d f join d t on t.e = f.e and t.a = 'edge/to'
        where f.a = 'edge/from' and f.v = ?1
    union
    select t.v from reached join d f on f.a = 'edge/from' and f.v = n
        join d t on t.e = f.e and t.a = 'edge/to')
    select i.v from reached join d i on i.e = n and i.a = 'node/id'"""
_CLOSURE = """with recursive f(x, y) as (
    select e, v from d where a = 'follows'
    union select f.x, d.v from f join d on d.e = f.y and d.a = 'follows') select x, y from f"""
_IVAN = "from d n join d a on a.e = n.e and a.a = 'age'"
_MALE = "join d s on s.e = n.e and s.a = 'sex' and s.v = 'male'"
_WHERE_IVAN = "where n.a = 'name' and n.v = 'Ivan'"
_PERSON = """from d p join d r on r.e = p.e and r.a = 'p/dept'
    join d n on n.e = r.v and n.a = 'd/name'"""

SQLITE: dict[str, str] = {
    "q1": "select e from d where a = 'name' and v = 'Ivan'",
    "q2": f"select n.e, a.v {_IVAN} {_WHERE_IVAN}",
    "q2-switch": f"select n.e, a.v {_IVAN} {_WHERE_IVAN}",
    "q3": f"select n.e, a.v {_IVAN} {_MALE} {_WHERE_IVAN}",
    "q4": f"""select n.e, l.v, a.v {_IVAN} {_MALE}
        join d l on l.e = n.e and l.a = 'last-name' {_WHERE_IVAN}""",
    "q5": f"""select distinct b.e, l.v, b.v from d b
        join d l on l.e = b.e and l.a = 'last-name'
        where b.a = 'age' and b.v in (select a.v {_IVAN} {_WHERE_IVAN})""",
    "q5-shortcircuit": """select n.e, n.v, l.v, a.v, s.v, al.v from d n
        join d a on a.e = n.e and a.a = 'age' and a.v = ?2
        join d l on l.e = n.e and l.a = 'last-name' join d s on s.e = n.e and s.a = 'sex'
        join d al on al.e = n.e and al.a = 'alias' where n.a = 'name' and n.v = ?1""",
    "qpred1": "select e, v from d where a = 'salary' and v > 50000",
    "qpred2": "select e, v from d where a = 'salary' and v > ?1",
    "q-or": "select distinct e from d where a = 'name' and v in ('Ivan', 'Petr')",
    "q-not": """select a.e, a.v from d a where a.a = 'age' and not exists
        (select 1 from d s where s.a = 'sex' and s.e = a.e and s.v = 'male')""",
    "q-or-join": """select n.e, a.v from d n join d a on a.e = n.e and a.a = 'age'
        where n.a = 'name' and n.v in ('Ivan', 'Petr')""",
    "q-pred-range": "select e, v from d where a = 'salary' and v > 50000 and v < 80000",
    "q-5-merge": """select s.e, n.v, l.v, a.v, p.v from d s
        join d n on n.e = s.e and n.a = 'name' join d l on l.e = s.e and l.a = 'last-name'
        join d a on a.e = s.e and a.a = 'age' join d p on p.e = s.e and p.a = 'salary'
        where s.a = 'sex' and s.v = 'male'""",
    "q-agg-avg": "select avg(v) from d where a = 'salary'",
    "q-agg-group": """select s.v, avg(p.v), count(*) from d s
        join d p on p.e = s.e and p.a = 'salary' where s.a = 'sex' group by s.v""",
    "q-agg-filter": """select avg(p.v), min(p.v), max(p.v) from d s
        join d p on p.e = s.e and p.a = 'salary' where s.a = 'sex' and s.v = 'male'""",
    "q-agg-pred": """select s.v, avg(p.v) from d p join d s on s.e = p.e and s.a = 'sex'
        where p.a = 'salary' and p.v > 50000 group by s.v""",
    "q-agg-multi": """select s.v, n.v, avg(p.v) from d s join d n on n.e = s.e and n.a = 'name'
        join d p on p.e = s.e and p.a = 'salary' where s.a = 'sex' group by s.v, n.v""",
    "q-join-ref-1": """select distinct p.v, n.v from d n
        join d r on r.a = 'p/dept' and r.v = n.e join d p on p.e = r.e and p.a = 'p/name'
        where n.a = 'd/name' and n.v = 'dept-99'""",
    "q-join-ref-10": """select distinct p.v, n.v from d b join d n on n.e = b.e and n.a = 'd/name'
        join d r on r.a = 'p/dept' and r.v = n.e join d p on p.e = r.e and p.a = 'p/name'
        where b.a = 'd/budget' and b.v > 450000""",
    "q-join-pred": """select distinct p.v, n.v from d b join d n on n.e = b.e and n.a = 'd/name'
        join d r on r.a = 'p/dept' and r.v = n.e join d p on p.e = r.e and p.a = 'p/name'
        where b.a = 'd/budget' and b.v > 400000""",
    "q-join-chain": f"""select distinct p.v, n.v, w.v {_PERSON}
        join d x on x.e = r.v and x.a = 'd/div' join d w on w.e = x.v and w.a = 'div/name'
        where p.a = 'p/name'""",
    "q-join-selective": """select distinct p.v, n.v from d s
        join d p on p.e = s.e and p.a = 'p/name' join d r on r.e = s.e and r.a = 'p/dept'
        join d n on n.e = r.v and n.a = 'd/name' where s.a = 'p/salary' and s.v > 90000""",
    "q-rule": "select e, v from d where a = 'follows'",
    "recursive-ground": _REACHED,
    "sip-single": "select v from d where a = 'node/id' and v in (select value from json_each(?1))",
    "sip-entity-group": """select i.v, x.v from d i join d x on x.e = i.e and x.a = 'node/data'
        where i.a = 'node/id' and i.v in (select value from json_each(?1))""",
}
SQLITE["q-not-join"] = SQLITE["q-not"]

# --- DuckDB: wide tables -------------------------------------------------------------------------

_STAFF = "from person p join department d on d.id = p.dept"

DUCKDB: dict[str, str] = {
    "q1": "select id from people where name = 'Ivan'",
    "q2": "select id, age from people where name = 'Ivan'",
    "q2-switch": "select id, age from people where name = 'Ivan'",
    "q3": "select id, age from people where name = 'Ivan' and sex = 'male'",
    "q4": "select id, last_name, age from people where name = 'Ivan' and sex = 'male'",
    "q5": """select id, last_name, age from people
        where age in (select age from people where name = 'Ivan')""",
    "q5-shortcircuit": """select p.id, name, last_name, age, sex, alias
        from people p join aliases a on a.id = p.id where name = ?1 and age = ?2""",
    "qpred1": "select id, salary from people where salary > 50000",
    "qpred2": "select id, salary from people where salary > ?1",
    "q-or": "select id from people where name in ('Ivan', 'Petr')",
    "q-not": "select id, age from people where sex <> 'male'",
    "q-or-join": "select id, age from people where name in ('Ivan', 'Petr')",
    "q-not-join": "select id, age from people where sex <> 'male'",
    "q-pred-range": "select id, salary from people where salary > 50000 and salary < 80000",
    "q-5-merge": "select id, name, last_name, age, salary from people where sex = 'male'",
    "q-agg-avg": "select avg(salary) from people",
    "q-agg-group": "select sex, avg(salary), count(*) from people group by sex",
    "q-agg-filter": "select avg(salary), min(salary), max(salary) from people where sex = 'male'",
    "q-agg-pred": "select sex, avg(salary) from people where salary > 50000 group by sex",
    "q-agg-multi": "select sex, name, avg(salary) from people group by sex, name",
    "q-agg-stats": """select avg(salary), var_pop(salary), stddev_pop(salary), median(salary)
        from people""",
    "q-join-ref-1": f"select p.name, d.name {_STAFF} where d.name = 'dept-99'",
    "q-join-ref-10": f"select p.name, d.name {_STAFF} where budget > 450000",
    "q-join-pred": f"select p.name, d.name {_STAFF} where budget > 400000",
    "q-join-chain": f"select p.name, d.name, v.name {_STAFF} join division v on v.id = d.div",
    "q-join-selective": f"select p.name, d.name {_STAFF} where p.salary > 90000",
    "q-rule": "select source, target from follows",
    "recursive-ground": """with recursive reached(n) as (
        select target from edge where source = ?1
        union select target from reached join edge on source = n) select n from reached""",
    "sip-single": "select id from node where id in (select unnest(?1))",
    "sip-entity-group": "select id, data from node where id in (select unnest(?1))",
}
_FOLLOWED = """with recursive f(x, y) as (
    select source, target from follows
    union select f.x, g.target from f join follows g on g.source = f.y) select x, y from f"""


def sqlite_loaded(data: dict[str, Any]) -> Callable[[str, list[Any]], Rows]:
    """Facts in SQLite; a function that asks."""
    db = sqlite3.connect(":memory:")
    db.execute("create table d (e integer not null, a text not null, v not null)")
    ids = data["ids"] or [one["id"] for one in data["entities"]]
    with db:
        db.executemany("insert into d values (?, ?, ?)", _facts(ids, data))
    db.execute("create index aevt on d (a, e, v)")
    db.execute("create index avet on d (a, v, e)")
    db.execute("create index eavt on d (e, a, v)")
    db.execute("analyze")

    def ask(sql: str, inputs: list[Any]) -> Rows:
        given = [json.dumps(one) if isinstance(one, list) else one for one in inputs]
        return db.execute(sql, given).fetchall()

    return ask


def _facts(ids: list[int], data: dict[str, Any]) -> Iterator[tuple[int, str, Any]]:
    latest: dict[int, dict[str, Any]] = {}
    for step in data["updates"]:
        for change in step:
            latest.setdefault(change["id"], {}).update(change)
    for number, one in zip(ids, data["entities"], strict=True):
        for name, value in {**one, **latest.get(number, {})}.items():
            for single in value if isinstance(value, list) else [value]:
                yield number, name, single
    for source, name, target in data["links"]:
        yield source, name, target


def duckdb_loaded(data: dict[str, Any]) -> Callable[[str, list[Any]], Rows]:
    """Wide tables in DuckDB; a function that asks."""
    import duckdb
    import pyarrow as pa

    db = duckdb.connect(":memory:")
    db.execute("set threads = 1")  # like all others

    def table(name: str, columns: dict[str, list[Any]]) -> None:
        source = pa.table(columns)
        db.register("source", source)
        db.execute(f"create table {name} as select * from source")
        db.unregister("source")

    entities, links = data["entities"], data["links"]
    ids = data["ids"] or [one["id"] for one in entities]

    def column(rows: list[dict[str, Any]], name: str) -> list[Any]:
        return [one.get(name) for one in rows]

    if "salary" in data["schema"]:
        latest: dict[int, dict[str, Any]] = {}
        for step in data["updates"]:
            for change in step:
                latest.setdefault(change["id"], {}).update(change)
        now = [{**one, **latest.get(number, {})} for number, one in zip(ids, entities, strict=True)]
        names = ("name", "last-name", "sex", "age", "salary")
        wide = {name.replace("-", "_"): column(now, name) for name in names}
        table("people", {"id": ids, **wide})
        pairs = [(n, x) for n, one in zip(ids, now, strict=True) for x in one.get("alias", ())]
        table("aliases", {"id": [p[0] for p in pairs], "alias": [p[1] for p in pairs]})
    if "p/name" in data["schema"]:
        dept = {source: target for source, name, target in links if name == "p/dept"}
        div = {source: target for source, name, target in links if name == "d/div"}
        people = [one for one in entities if "p/name" in one]
        departments = [one for one in entities if "d/name" in one]
        divisions = [one for one in entities if "div/name" in one]
        table(
            "person",
            {
                "id": column(people, "id"),
                "name": column(people, "p/name"),
                "salary": column(people, "p/salary"),
                "dept": [dept[one["id"]] for one in people],
            },
        )
        table(
            "department",
            {
                "id": column(departments, "id"),
                "name": column(departments, "d/name"),
                "budget": column(departments, "d/budget"),
                "div": [div[one["id"]] for one in departments],
            },
        )
        table("division", {"id": column(divisions, "id"), "name": column(divisions, "div/name")})
    if "edge/from" in data["schema"]:
        target_of = {source: target for source, name, target in links if name == "edge/to"}
        begins = [(source, target) for source, name, target in links if name == "edge/from"]
        table(
            "edge",
            {"source": [b for _, b in begins], "target": [target_of[e] for e, _ in begins]},
        )
        nodes = [one for one in entities if "node/id" in one]
        table("node", {"id": column(nodes, "node/id"), "data": column(nodes, "node/data")})
    follows = [(source, target) for source, name, target in links if name == "follows"]
    if follows:
        table("follows", {"source": [a for a, _ in follows], "target": [b for _, b in follows]})

    def ask(sql: str, inputs: list[Any]) -> Rows:
        return db.execute(sql, inputs).fetchall()

    return ask


def sql_of(system: str, name: str) -> str | None:
    """The SQL of a workload, None where a system does not take part."""
    short = name.removeprefix("1m-").removeprefix("current-")
    if short.startswith("rules-"):
        return _CLOSURE if system == "sqlite" else _FOLLOWED
    return (SQLITE if system == "sqlite" else DUCKDB).get(short)


def median_ms(work: Callable[[], Any], protocol: dict[str, Any]) -> tuple[float, int]:
    """As `measure.median_ms`, for a protocol read from a task."""
    began = time.perf_counter()
    work()
    while time.perf_counter() - began < protocol["warm_s"]:
        work()
    gc.collect()
    times = []
    for _ in range(protocol["samples"]):
        calls, began = 0, time.perf_counter()
        while (now := time.perf_counter()) - began < protocol["sample_s"]:
            work()
            calls += 1
        times.append((now - began) * 1000 / max(calls, 1))
    return statistics.median(times), len(times)


def main() -> None:
    system, path = sys.argv[1], Path(sys.argv[2])
    task = json.loads(path.read_text())
    load = sqlite_loaded if system == "sqlite" else duckdb_loaded
    loaded: dict[str, Callable[[str, list[Any]], Rows]] = {}
    for workload in task["workloads"]:
        sql = sql_of(system, workload["name"])
        if sql is None:
            continue
        name = workload["dataset"]
        if name not in loaded:
            loaded.clear()  # one data set at a time
            file = Path(task["folder"]) / task["datasets"][name]
            loaded[name] = load(json.loads(file.read_text()))
        ask = loaded[name]
        inputs = [one.get("id", one.get("value")) for one in workload["inputs"]]
        kinds = workload["kinds"].replace("e", "v")

        def work(
            ask: Callable[[str, list[Any]], Rows] = ask,
            sql: str = sql,
            inputs: list[Any] = inputs,
        ) -> Rows:
            return ask(sql, inputs)

        found = answer(work(), kinds)
        median, samples = median_ms(work, task["protocol"])
        line = {"workload": workload["name"], "median_ms": median, "n": samples}
        print(json.dumps(line | {"rows": found.rows, "checksum": found.checksum}), flush=True)


if __name__ == "__main__":
    main()
