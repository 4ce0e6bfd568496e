// The live feed of a database: server-sent events, taken up again when they break.

import { effect, signal } from "@preact/signals";
import { noteLost, reach, returns } from "./api";
import { branch, database, loadBranch, loadDatabases, noteTransaction } from "./state";
import { decode, type Struct, type Value } from "./values";

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

function add(kind: Item["kind"], on: string, report: Struct): void {
  const item: Item = { key: ++keys, at: Date.now(), branch: on, report, kind };
  items.value = [item, ...items.value].slice(0, KEPT);
}

function onReport(event: MessageEvent<string>): void {
  const report = decode(JSON.parse(event.data)) as Struct;
  const on = String(report.branch);
  if (report.rejected !== undefined) {
    add("rejected", on, report);
    return;
  }
  add("report", on, report);
  const now = Date.now();
  arrivals.value = [...arrivals.value.filter((at) => at > now - 60_000), now];
  if (on === branch.value) {
    const instant = report.instant instanceof Date ? report.instant : null;
    noteTransaction(Number(report.tx), instant, Number(report.datoms ?? 0));
    if (declaresSchema(report)) void loadBranch();
  }
}

const SCHEMA = new Set([":db/valueType", ":db/ident", ":db/cardinality"]);

function declaresSchema(report: Struct): boolean {
  return ((report.tx_data ?? []) as Value[][]).some((datom) => SCHEMA.has(String(datom[1])));
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
