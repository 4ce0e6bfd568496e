// What there is to know of one entity: facts, their history, references to it, names of neighbours.

import { ask } from "./api";
import type { Schema } from "./schema";
import { TX_BASE } from "./state";
import { compare, EdnMap, Keyword, pairsOf, same, toText, type Struct, type Value } from "./values";

export const BACK_MAX = 50;
const LIST_MAX = 500;

/** One value of an attribute from the transaction that asserted it to the one that retracted it. */
export interface Interval {
  value: Value;
  from: number;
  to: number | null;
}

export interface Facts {
  attribute: string;
  many: boolean;
  isRef: boolean;
  /** Values that hold in the view. */
  values: { value: Value; tx: number }[];
  /** Everything that ever held, oldest first. */
  intervals: Interval[];
}

export interface Entity {
  id: number;
  label: string | null;
  facts: Facts[];
  instants: Map<number, Date>;
  labels: Map<number, string>;
  back: { attribute: string; ids: number[]; more: boolean }[];
}

type Datom = [number, Keyword, Value, number, boolean];

const edn = (text: string) => ({ "#edn": text });

async function resolve(
  name: string,
  branch: string,
  reference: string,
  view: object,
  stop: AbortSignal,
): Promise<number> {
  if (/^\d+$/.test(reference)) return Number(reference);
  const found = await ask(name, branch, "pull", { pattern: edn("[:db/id]"), eid: edn(reference), view }, stop);
  const id = found.result instanceof EdnMap ? found.result.get("db/id") : undefined;
  if (typeof id !== "number") throw new Error(`${reference} names no entity.`);
  return id;
}

function intervalsOf(events: Datom[]): Interval[] {
  const found: Interval[] = [];
  // of one transaction, what it retracts was there before what it asserts
  const sorted = [...events].sort((x, y) => x[3] - y[3] || Number(x[4]) - Number(y[4]));
  for (const [, , value, tx, added] of sorted) {
    if (added) found.push({ value, from: tx, to: null });
    else {
      const open = found.find((each) => each.to === null && same(each.value, value));
      if (open !== undefined) open.to = tx;
    }
  }
  return found;
}

function factsOf(current: Datom[], events: Datom[], read: Schema): Facts[] {
  const names = [...new Set([...current, ...events].map(([, a]) => a.text))];
  return names.map((attribute) => {
    const declared = read.attribute(attribute);
    const values = current.filter(([, a]) => a.text === attribute).map(([, , value, tx]) => ({ value, tx }));
    return {
      attribute,
      many: declared?.many ?? values.length > 1,
      isRef: declared?.isRef ?? false,
      values,
      intervals: intervalsOf(events.filter(([, a]) => a.text === attribute)),
    };
  });
}

function reverse(ident: string): string {
  const at = ident.lastIndexOf("/") + 1;
  return `:${ident.slice(0, at)}_${ident.slice(at)}`;
}

async function backOf(
  name: string,
  branch: string,
  id: number,
  read: Schema,
  view: object,
  stop: AbortSignal,
): Promise<Entity["back"]> {
  const refs = read.refs;
  if (refs.length === 0) return [];
  const pattern = `[${refs.map((ref) => `(limit ${reverse(ref.ident)} ${BACK_MAX + 1})`).join(" ")}]`;
  const found = await ask(name, branch, "pull", { pattern: edn(pattern), eid: id, view }, stop);
  const result = found.result;
  if (!(result instanceof EdnMap)) return [];
  return refs.flatMap((ref) => {
    const there = result.get(reverse(ref.ident).slice(1));
    const list = there === undefined ? [] : Array.isArray(there) ? there : [there];
    const ids = list
      .map((each) => (each instanceof EdnMap ? each.get("db/id") : each))
      .filter((each): each is number => typeof each === "number");
    return ids.length === 0
      ? []
      : [{ attribute: ref.ident, ids: ids.slice(0, BACK_MAX), more: ids.length > BACK_MAX }];
  });
}

/** Names of entities, by the attributes that people name things with. */
export async function labelsOf(
  name: string,
  branch: string,
  ids: number[],
  read: Schema,
  view: object,
  stop: AbortSignal,
): Promise<Map<number, string>> {
  const attributes = read.labels.slice(0, 6);
  const wanted = [...new Set(ids)].filter((id) => id < TX_BASE).slice(0, LIST_MAX);
  if (attributes.length === 0 || wanted.length === 0) return new Map();
  const pattern = `[${attributes.map((each) => `:${each.ident}`).join(" ")}]`;
  const found = await ask(name, branch, "pull", { pattern: edn(pattern), eids: wanted, view }, stop);
  const labels = new Map<number, string>();
  (found.result as Value[]).forEach((map, at) => {
    const pairs = pairsOf(map) ?? [];
    const first = attributes
      .map((each) => pairs.find(([key]) => key instanceof Keyword && key.text === each.ident)?.[1])
      .find((value) => value !== undefined && value !== null);
    if (first !== undefined && first !== null) labels.set(wanted[at]!, toText(first));
  });
  return labels;
}

async function instantsOf(
  name: string,
  branch: string,
  txs: number[],
  stop: AbortSignal,
): Promise<Map<number, Date>> {
  const wanted = [...new Set(txs)];
  if (wanted.length === 0) return new Map();
  const query = "[:find ?tx ?instant :in $ [?tx ...] :where [?tx :db/txInstant ?instant]]";
  const found = await ask(name, branch, "query", { query, args: [{ "natalog/db": {} }, wanted] }, stop);
  return new Map(found.result as [number, Date][]);
}

/** Everything about an entity that `reference` (an id, an ident or a lookup ref) names. */
export async function loadEntity(
  name: string,
  branch: string,
  reference: string,
  view: object,
  keepsHistory: boolean,
  read: Schema,
  stop: AbortSignal,
): Promise<Entity> {
  const id = await resolve(name, branch, reference, view, stop);
  const datoms = (within: object) =>
    ask(name, branch, "datoms", { index: "eavt", components: [id], view: within }, stop).then(
      (found: Struct) => found.result as unknown as Datom[],
    );
  const [current, events, back] = await Promise.all([
    datoms(view),
    keepsHistory ? datoms({ ...view, history: true }) : Promise.resolve([]),
    backOf(name, branch, id, read, view, stop),
  ]);
  const facts = factsOf(current, events, read);
  const neighbours = [id, ...back.flatMap(({ ids }) => ids)];
  for (const each of facts) {
    if (!each.isRef) continue;
    for (const { value } of [...each.values, ...each.intervals]) {
      if (typeof value === "number") neighbours.push(value);
    }
  }
  const [labels, instants] = await Promise.all([
    labelsOf(name, branch, neighbours, read, view, stop),
    keepsHistory
      ? instantsOf(name, branch, [...current, ...events].map((datom) => datom[3]), stop)
      : Promise.resolve(new Map<number, Date>()),
  ]);
  return { id, label: labels.get(id) ?? null, facts, instants, labels, back };
}

export interface Listed {
  id: number;
  value: Value;
}

/** Entities that have an attribute whose value holds the text `filter`. */
export async function listEntities(
  name: string,
  branch: string,
  attribute: string,
  filter: string,
  view: object,
  stop: AbortSignal,
): Promise<{ found: Listed[]; more: boolean }> {
  const holds = filter === "" ? "" : "[(str ?v) ?text] [(re-find ?pattern ?text)]";
  const pattern = `(?i)${filter.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")}`;
  const body = {
    query: `[:find ?e ?v :in $ ?pattern :where [?e :${attribute} ?v] ${holds}]`,
    args: [{ "natalog/db": view }, pattern],
    limit: LIST_MAX + 1,
    timeout_ms: 10_000,
  };
  const answer = await ask(name, branch, "query", body, stop);
  const rows = (answer.result as [number, Value][]).map(([id, value]) => ({ id, value }));
  const more = rows.length > LIST_MAX;
  // a part of the entities has no order of its own
  if (!more) rows.sort((left, right) => compare(left.value, right.value) || left.id - right.id);
  return { found: rows.slice(0, LIST_MAX), more };
}
