// What all pages share: databases, branches, the schema, the transactions and the point in time.

import { computed, effect, signal, untracked } from "@preact/signals";
import { ask, isAbort, returns } from "./api";
import { MAIN_BRANCH, route } from "./route";
import { Schema } from "./schema";
import { instantText, Keyword, type Struct, type Value } from "./values";

export const TX_BASE = 2 ** 52;
const LANE = 2 ** 32;
const TRANSACTIONS_MAX = 5000;
const SIZES_DATOMS_MAX = 150_000;

export interface DatabaseEntry extends Struct {
  database: string;
  created: Date;
  keep_history: boolean;
  schema_flexibility: string;
  branches: string[];
}

export interface Transactions {
  /** Ids, ascending, and their instants in milliseconds. */
  ids: number[];
  ms: number[];
  /** Datoms of each, where counting them is cheap. */
  sizes: Map<number, number> | null;
  /** There are older ones than the first of `ids`. */
  older: boolean;
}

const NONE: Transactions = { ids: [], ms: [], sizes: null, older: false };

export const databases = signal<DatabaseEntry[] | null>(null);
export const schema = signal<Schema>(new Schema());
export const transactions = signal<Transactions>(NONE);
/** What went wrong with reading the database itself. */
export const trouble = signal<unknown>(null);
export const headInfo = signal<Struct | null>(null);
/** Counts up with every transaction that the feed reports for the branch that is shown. */
export const news = signal(0);

export const entry = computed(
  () => databases.value?.find((each) => each.database === route.value.database) ?? null,
);
/** The newest transaction that is known of the branch that is shown. */
export const headTx = computed((): number | null => {
  const known = Math.max(Number(headInfo.value?.max_tx ?? 0), transactions.value.ids.at(-1) ?? 0);
  return known === 0 ? null : known;
});

export const database = computed(() => route.value.database);
export const branch = computed(() => route.value.branch);
const place = computed(() => `${database.value ?? ""}/${branch.value}`);

// --- time ----------------------------------------------------------------------------------------

const asOfText = computed(() => route.value.params.get("t"));
export const withHistory = computed(() => route.value.params.get("h") === "1");

/** A transaction id, an instant as text, or null for now. */
export const asOf = computed((): number | string | null => {
  const text = asOfText.value;
  if (text === null) return null;
  return /^\d+$/.test(text) ? Number(text) : text;
});

/** The view of a request at the point in time that is shown. */
export function currentView(history = withHistory.value): Record<string, unknown> {
  return {
    ...(asOf.value === null ? {} : { as_of: asOf.value }),
    ...(history ? { history: true } : {}),
  };
}

/** "42", or "3/42" for a transaction of another lane than the main one. */
export function shortTx(tx: number): string {
  const offset = tx - TX_BASE;
  const lane = Math.floor(offset / LANE);
  return lane === 0 ? String(offset) : `${lane}/${offset % LANE}`;
}

/** What a person means by "42", "3/42", a whole transaction id or "2026-03-01"; null for nothing. */
export function readTimePoint(text: string): number | string | null {
  const trimmed = text.trim();
  const found = /^(?:tx\s*)?(?:(\d+)\/)?(\d+)$/.exec(trimmed);
  if (found !== null) {
    const number = Number(found[2]);
    if (number >= TX_BASE) return number;
    return TX_BASE + Number(found[1] ?? 0) * LANE + number;
  }
  if (!/^\d{4}-\d\d/.test(trimmed)) return null;
  const zoned = !trimmed.includes(":") || /([zZ]|[+-]\d\d:?\d\d)$/.test(trimmed);
  const instant = new Date(zoned ? trimmed : `${trimmed}Z`);
  return Number.isNaN(instant.getTime()) ? null : instantText(instant);
}

/** The place of a point in time among the transactions: how many of them it contains. */
export function positionOf(point: number | string | null): number {
  const { ids, ms } = transactions.value;
  if (point === null) return ids.length;
  const limit = typeof point === "string" ? new Date(point).getTime() : 0;
  let count = 0;
  for (let at = 0; at < ids.length; at++) {
    if (typeof point === "number" ? ids[at]! <= point : ms[at]! <= limit) count = at + 1;
  }
  return count;
}

/** The point in time that contains so many of the transactions: null is now. */
export function pointAt(position: number): number | null {
  const { ids } = transactions.value;
  if (position >= ids.length) return null;
  return position >= 1 ? ids[position - 1]! : ids[0]! - 1;
}

export function instantOf(tx: number): Date | null {
  const { ids, ms } = transactions.value;
  let low = 0;
  let high = ids.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (ids[middle] === tx) return new Date(ms[middle]!);
    if (ids[middle]! < tx) low = middle + 1;
    else high = middle - 1;
  }
  return null;
}

// --- loading -------------------------------------------------------------------------------------

export async function loadDatabases(): Promise<void> {
  try {
    const found = await ask("_", "_", "list");
    databases.value = found.databases as DatabaseEntry[];
    trouble.value = null;
  } catch (error) {
    trouble.value = error;
  }
}

let loading: AbortController | null = null;

/** Read schema, head and transactions of the branch that is shown. */
export async function loadBranch(): Promise<void> {
  const name = untracked(() => database.value);
  const on = untracked(() => branch.value);
  if (name === null) return;
  loading?.abort();
  const stop = (loading = new AbortController()).signal;
  try {
    const [read, info] = await Promise.all([
      ask(name, on, "schema", {}, stop),
      ask(name, on, "info", {}, stop),
    ]);
    const [found, used] = await Promise.all([
      loadTransactions(name, on, info, stop),
      loadUsed(name, on, info, stop),
    ]);
    schema.value = new Schema(read.result, used);
    headInfo.value = info;
    transactions.value = found;
    trouble.value = null;
  } catch (error) {
    if (!isAbort(error)) trouble.value = error;
  }
}

/** The attributes that have facts, where they need no declaration. */
async function loadUsed(name: string, on: string, info: Struct, stop: AbortSignal): Promise<string[]> {
  if ((info.config as Struct).schema_flexibility !== "read") return [];
  const found = await ask(name, on, "query", { query: "[:find [?a ...] :where [_ ?a]]" }, stop);
  return (found.result as Value[]).flatMap((each) => (each instanceof Keyword ? [each.text] : [])).sort();
}

async function loadTransactions(
  name: string,
  on: string,
  info: Struct,
  stop: AbortSignal,
): Promise<Transactions> {
  if ((info.config as Struct).keep_history !== true) return NONE;
  const query = "[:find ?tx ?instant :where [?tx :db/txInstant ?instant]]";
  const body = { query, order_by: [0, ":desc"], limit: TRANSACTIONS_MAX + 1 };
  const found = (await ask(name, on, "query", body, stop)).result as [number, Date][];
  const older = found.length > TRANSACTIONS_MAX;
  const kept = found.slice(0, TRANSACTIONS_MAX).reverse();
  const ids = kept.map(([tx]) => tx);
  const ms = kept.map(([, instant]) => instant.getTime());
  let sizes: Map<number, number> | null = null;
  if (Number(info.datoms) <= SIZES_DATOMS_MAX && ids.length > 0) {
    sizes = await loadSizes(name, on, stop).catch(() => null);
  }
  return { ids, ms, sizes, older };
}

async function loadSizes(name: string, on: string, stop: AbortSignal): Promise<Map<number, number>> {
  const query = "[:find ?tx (count ?e) :with ?a ?v ?op :where [?e ?a ?v ?tx ?op]]";
  const body = { query, view: { history: true }, timeout_ms: 3000 };
  const found = await ask(name, on, "query", body, stop);
  return new Map(found.result as [number, number][]);
}

export interface Noted {
  tx: number;
  instant: Date | null;
  datoms: number;
}

const NEWS_MS = 1000;
let told = 0;
let telling = 0;

/** Tell the pages at most once a second that there is something new. */
function tellNews(): void {
  if (telling !== 0) return;
  const wait = Math.max(0, told + NEWS_MS - Date.now());
  telling = window.setTimeout(() => {
    telling = 0;
    told = Date.now();
    news.value++;
  }, wait);
}

/** Transactions that the feed has told of, in their order. */
export function noteTransactions(found: Noted[]): void {
  const known = transactions.value;
  let last = known.ids.at(-1) ?? 0;
  const fresh = found.filter(({ tx, instant }) => {
    if (instant === null || tx <= last) return false;
    last = tx;
    return true;
  });
  if (fresh.length > 0 && entry.value?.keep_history !== false) {
    const sizes = known.sizes === null ? null : new Map(known.sizes);
    for (const { tx, datoms } of fresh) sizes?.set(tx, datoms);
    const ids = [...known.ids, ...fresh.map(({ tx }) => tx)];
    const ms = [...known.ms, ...fresh.map(({ instant }) => instant!.getTime())];
    const cut = Math.max(0, ids.length - 2 * TRANSACTIONS_MAX);
    transactions.value = { ids: ids.slice(cut), ms: ms.slice(cut), sizes, older: known.older || cut > 0 };
  }
  tellNews();
}

/** Keep what is loaded in step with the address; call once. */
export function startState(): void {
  effect(() => {
    if (returns.value > 0) void loadDatabases();
  });
  effect(() => {
    place.value;
    const connected = returns.value > 0;
    untracked(() => {
      schema.value = new Schema();
      transactions.value = NONE;
      headInfo.value = null;
    });
    if (connected) void loadBranch();
  });
}

export function otherBranches(): string[] {
  const names = entry.value?.branches ?? [];
  return [...names].sort((left, right) =>
    left === MAIN_BRANCH ? -1 : right === MAIN_BRANCH ? 1 : left < right ? -1 : 1,
  );
}
