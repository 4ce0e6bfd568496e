// The live feed of a database: server-sent events, taken up again when they break.

import { effect, signal } from "@preact/signals";
import { noteLost, reach, returns } from "./api";
import { branch, database, loadBranch, loadDatabases, noteTransactions, schema } from "./state";
import { decode, Keyword, type Struct, type Value } from "./values";

export interface Item {
  key: number;
  at: number;
  branch: string;
  report: Struct;
  /** "gap" stands where the feed was interrupted. */
  kind: "report" | "rejected" | "gap";
}

const KEPT = 500;
const HIDDEN_MS = 60_000;

export const items = signal<Item[]>([]);
/** Arrivals of the last minute, for the rate. */
export const arrivals = signal<number[]>([]);
export const following = signal(false);

let source: EventSource | null = null;
let keys = 0;
let interrupted = false;

const FLUSH_MS = 200;
let pending: Item[] = [];
let flushing = 0;

function add(kind: Item["kind"], on: string, report: Struct): void {
  pending.push({ key: ++keys, at: Date.now(), branch: on, report, kind });
  if (flushing === 0) flushing = window.setTimeout(flush, FLUSH_MS);
}

/** Show what has come: all at once, so that a busy database does not keep the page busy. */
function flush(): void {
  flushing = 0;
  const fresh = pending;
  pending = [];
  items.value = [...fresh.slice(-KEPT).reverse(), ...items.value].slice(0, KEPT);
  const reports = fresh.filter(({ kind }) => kind === "report");
  const now = Date.now();
  arrivals.value = [...arrivals.value.filter((at) => at > now - 60_000), ...reports.map(({ at }) => at)];
  const mine = reports.filter((item) => item.branch === branch.value).map(({ report }) => report);
  if (mine.length === 0) return;
  noteTransactions(
    mine.map((report) => ({
      tx: Number(report.tx),
      instant: report.instant instanceof Date ? report.instant : null,
      datoms: Number(report.datoms ?? 0),
    })),
  );
  if (mine.some(changesSchema)) void loadBranch();
}

function onReport(event: MessageEvent<string>): void {
  const report = decode(JSON.parse(event.data)) as Struct;
  add(report.rejected === undefined ? "report" : "rejected", String(report.branch), report);
}

const DECLARING = new Set(["db/valueType", "db/ident", "db/cardinality"]);

/** Whether it declares attributes, or uses one that needed no declaration. */
function changesSchema(report: Struct): boolean {
  return ((report.tx_data ?? []) as Value[][]).some(([, attribute]) => {
    if (!(attribute instanceof Keyword)) return false;
    const { text } = attribute;
    return text.startsWith("db/") ? DECLARING.has(text) : schema.value.attribute(text) === undefined;
  });
}

function close(): void {
  source?.close();
  source = null;
  following.value = false;
}

function open(name: string): void {
  close();
  const opened = new EventSource(`/api/${encodeURIComponent(name)}/feed`);
  source = opened;
  opened.addEventListener("ready", () => {
    following.value = true;
    if (interrupted) {
      interrupted = false;
      add("gap", "", {});
      void loadBranch();
    }
  });
  opened.addEventListener("report", onReport);
  opened.addEventListener("changed", () => void loadDatabases());
  opened.addEventListener("lost", (event) => {
    add("gap", "", { lost: Number((event as MessageEvent<string>).data) });
    void loadBranch();
  });
  opened.onerror = () => {
    if (source !== opened) return;
    interrupted = true;
    close();
    noteLost();
  };
}

/** Follow the database that is shown; call once. */
export function startFeed(): void {
  let name: string | null = null;
  const resume = () => {
    if (name !== null && reach.value === "up" && !document.hidden && source === null) open(name);
  };
  effect(() => {
    const shown = database.value;
    if (shown !== name) {
      name = shown;
      items.value = [];
      pending = [];
      arrivals.value = [];
      interrupted = false;
      close();
    }
    returns.value;
    if (reach.value === "up") resume();
  });
  let hiding = 0;
  // a browser opens few connections to one server; pages that nobody looks at give theirs back
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) {
      hiding = window.setTimeout(() => {
        if (source !== null) interrupted = true;
        close();
      }, HIDDEN_MS);
    } else resume();
  });
}
