// DataScript on the workloads of a task file: node datascript_peer.js TASK.json
//
// Prints a JSON line for each: {workload, median_ms, n, rows, checksum}.  The same protocol and the
// same checksum as measure.py; results are the arrays that d.q builds.
"use strict";

const crypto = require("crypto");
const fs = require("fs");
const path = require("path");
const d = require("datascript");

const task = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const { samples, sample_s, warm_s, runs } = task.protocol;
const SPECIAL = new Set(["find", "in", "with", "where"]);

const now = () => Number(process.hrtime.bigint()) / 1e6;
// attributes are strings in JavaScript
const translated = (text) =>
  text.replace(/:([a-z][a-z0-9/-]*)/g, (all, name) => (SPECIAL.has(name) ? all : `"${name}"`));

function cell(value, kind) {
  if (kind !== "n") return String(value).replace(/^:/, "");
  const [mantissa, exponent] = Number(value).toExponential(6).split("e");
  return `${mantissa}e${parseInt(exponent, 10)}`;
}

function answer(rows, kinds) {
  const lines = rows.map((row) => row.map((value, n) => cell(value, kinds[n])).join("\t"));
  lines.sort();
  const digest = crypto.createHash("sha256").update(lines.join("\n")).digest("hex");
  return { rows: lines.length, checksum: digest.slice(0, 16) };
}

function median(times) {
  const sorted = [...times].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

function measured(work) {
  const start = now();
  work();
  while (now() - start < warm_s * 1000) work();
  const times = [];
  for (let n = 0; n < samples; n++) {
    const began = now();
    let calls = 0;
    while (now() - began < sample_s * 1000) {
      work();
      calls++;
    }
    times.push((now() - began) / calls);
  }
  return { median_ms: median(times), n: samples };
}

function wholeRuns(work) {
  const times = [];
  for (let n = 0; n < runs; n++) {
    const began = now();
    work();
    times.push(now() - began);
  }
  return { median_ms: median(times), n: runs };
}

const done = (workload, time, found) =>
  console.log(JSON.stringify({ workload, ...time, ...found }));

function schemaOf(dataset) {
  const found = {};
  for (const [name, a] of Object.entries(dataset.schema)) {
    const entry = {};
    if (a.kind === "ref") entry[":db/valueType"] = ":db.type/ref";
    if (a.many) entry[":db/cardinality"] = ":db.cardinality/many";
    if (a.unique) entry[":db/unique"] = ":db.unique/identity";
    else if (a.index) entry[":db/index"] = true;
    if (Object.keys(entry).length) found[name] = entry;
  }
  return found;
}

function* batches(list, size) {
  for (let start = 0; start < list.length; start += size) yield list.slice(start, start + size);
}

const reading = {};
function dataset(name) {
  reading[name] ??= JSON.parse(fs.readFileSync(path.join(task.folder, task.datasets[name]), "utf8"));
  return reading[name];
}

function filled(data, size) {
  let db = d.empty_db(schemaOf(data));
  for (const batch of batches(data.entities, size)) db = d.db_with(db, batch);
  return db;
}

function load(name) {
  const data = dataset(name);
  let db = filled(data, 1000);
  for (const batch of batches(data.links, 1000)) {
    db = d.db_with(db, batch.map(([e, a, v]) => [":db/add", ["id", e], a, ["id", v]]));
  }
  for (const step of data.updates) db = d.db_with(db, step);
  return { db, ...idsOf(db, data) };
}

function idsOf(db, data) {
  const ids = new Map();
  if (data.ids) {
    const known = d.datoms(db, ":aevt", "name").map((datom) => datom.e);
    known.sort((a, b) => a - b).forEach((e, n) => ids.set(e, data.ids[n]));
  } else {
    for (const datom of d.datoms(db, ":aevt", "id")) ids.set(datom.e, datom.v);
  }
  const eids = new Map([...ids].map(([e, id]) => [id, e]));
  return { ids, eids };
}

const loaded = {};
const get = (name) => (loaded[name] ??= load(name));

function runQuery(workload) {
  const { db, ids, eids } = get(workload.dataset);
  const query = translated(workload.query);
  const inputs = workload.inputs.map((value) => ("id" in value ? eids.get(value.id) : value.value));
  const rules = workload.rules ? [translated(workload.rules)] : [];
  const ask = () => d.q(query, db, ...rules, ...inputs);
  const named = ask().map((row) =>
    row.map((value, n) => (workload.kinds[n] === "e" ? ids.get(value) : value)));
  const found = answer(named, workload.kinds);
  if (found.rows !== workload.rows || found.checksum !== workload.checksum) {
    done(workload.name, { median_ms: null, n: 0 }, found);
    return;
  }
  done(workload.name, measured(ask), found);
}

function nodeRow(node, names) {
  return names.map((name) => {
    const value = node[name] ?? [];
    return (Array.isArray(value) ? [...value].sort() : [value]).map((v) => cell(v, "v")).join(",");
  });
}

function* nodesOf(tree) {
  yield tree;
  for (const child of tree.follows ?? []) yield* nodesOf(child);
}

const ofNodes = (nodes, names) =>
  answer([...nodes].map((node) => nodeRow(node, names)), "v".repeat(names.length));

function pull() {
  const { one, many, six, all } = task.pull;
  const tree = get("tree");
  const root = tree.eids.get(1);
  const pulls = [["pull-one", one, ["name"]], ["pull-many", many, six]];
  for (const [name, pattern, names] of pulls) {
    const form = translated(pattern);
    const work = () => d.pull(tree.db, form, root);
    done(name, measured(work), ofNodes(nodesOf(work()), names));
  }
  const every = [...tree.ids.keys()];
  const each = () => every.map((e) => d.pull(tree.db, "[*]", e));
  done("pull-wildcard", measured(each), ofNodes(each(), all));
  const { db, eids } = get("people");
  const wanted = task.pull.reads;
  const entities = wanted.map((id) => eids.get(id));
  const whole = () => d.pull_many(db, "[*]", entities);
  done("pull-many-1000-wildcard", measured(whole), ofNodes(whole(), all));
  const lookup = translated(task.pull.lookup);
  const reads = {
    "find-datoms-1000": (_, e) => d.datoms(db, ":eavt", e, "name")[0].v,
    "lookup-entity-x1000": (id) => d.entity(db, ["id", id]).get("name"),
    "lookup-pull-x1000": (id) => d.pull(db, '["name"]', ["id", id]).name,
    "lookup-q-x1000": (id) => d.q(lookup, db, id),
    "lookup-datoms-x1000": (id) =>
      d.datoms(db, ":eavt", d.datoms(db, ":avet", "id", id)[0].e, "name")[0].v,
  };
  for (const [name, read] of Object.entries(reads)) {
    const work = () => wanted.map((id, n) => read(id, entities[n]));
    const found = answer(work().map((value, n) => [wanted[n], value]), "vv");
    done(name, measured(work), found);
  }
}

const ages = (db) => answer(d.q('[:find ?id ?a :where [?e "id" ?id] [?e "age" ?a]]', db), "vv");

function whole(name, start, transactions) {
  let last;
  const time = wholeRuns(() => {
    let db = start;
    for (const tx of transactions) db = d.db_with(db, tx);
    last = db;
  });
  done(name, time, ages(last));
}

function transact() {
  const data = dataset("people");
  const empty = d.empty_db(schemaOf(data));
  const five = ["name", "last-name", "sex", "age", "salary"];
  const plain = data.entities.map((one) =>
    Object.fromEntries(["id", ...five].map((name) => [name, one[name]])));
  const known = d.db_with(empty, plain.map((one) => ({ id: one.id })));
  const facts = plain.flatMap((one) =>
    five.map((name) => [[":db/add", ["id", one.id], name, one[name]]]));
  const full = filled(data, 1000);
  whole("add-1", known, facts);
  whole("add-5", empty, plain.map((one) => [one]));
  whole("add-all", empty, [plain]);
  const eids = d.datoms(full, ":aevt", "id").map((datom) => datom.e);
  whole("retract-5", full, eids.map((e) => [[":db/retractEntity", e]]));
  for (const size of [1, 10, 100, 1000]) {
    whole(`load-${size}`, empty, [...batches(data.entities, size)]);
  }
  const people = data.entities.length;
  const one = (name, make) => {
    let db = full;
    const times = [];
    const wanted = [];
    for (let n = 0; n < task.latencies; n++) {
      const tx = make(n);
      wanted.push([tx[0].id, tx[0].age]);
      const began = now();
      db = d.db_with(db, tx);
      times.push(now() - began);
    }
    const last = new Map(wanted);
    const found = [...last.keys()].map((id) => [id, d.entity(db, ["id", id]).get("age")]);
    done(name, { median_ms: median(times), n: times.length }, answer(found, "vv"));
  };
  one("tx-latency-new-entity", (n) =>
    [{ id: people + n + 1, name: "Ivan", age: n % 100, salary: n }]);
  one("tx-latency-update", (n) => [{ id: (n % people) + 1, age: 100 + n }]);
}

function million() {
  const data = dataset("million");
  let db;
  const time = wholeRuns(() => {
    db = filled(data, 1000);
  });
  done("1m-load-1000", time, { rows: d.datoms(db, ":eavt").length, checksum: "" });
  loaded.million = { db, ...idsOf(db, data) };
}

if (task.suites.includes("load")) million();
for (const workload of task.workloads) runQuery(workload);
if (task.suites.includes("pull")) pull();
if (task.suites.includes("transact")) transact();
