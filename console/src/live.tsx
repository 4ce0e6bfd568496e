// Transactions as they happen.

import { useEffect, useState } from "preact/hooks";
import { Datoms } from "./datoms";
import { arrivals, following, items, type Item } from "./feed";
import { count, Empty, EntityLink, instantLabel, Shown } from "./shown";
import { otherBranches, shortTx } from "./state";
import { isStruct, type Struct, type Value } from "./values";

export function LivePage() {
  const [paused, setPaused] = useState<Item[] | null>(null);
  const [only, setOnly] = useState("");
  const list = (paused ?? items.value).filter(
    (item) => only === "" || item.branch === only || item.kind === "gap",
  );
  const fresh = paused === null ? 0 : (items.value[0]?.key ?? 0) - (paused[0]?.key ?? 0);
  return (
    <div class="live-page">
      <div class="bar">
        <span class={`pulse ${following.value ? "on" : ""}`} role="status">
          {following.value ? "Following the feed" : "Not connected to the feed"}
        </span>
        <Rate />
        <span class="grow" />
        <label>
          <span class="sr">branch</span>
          <select value={only} onChange={(event) => setOnly(event.currentTarget.value)}>
            <option value="">all branches</option>
            {otherBranches().map((name) => (
              <option value={name}>{name}</option>
            ))}
          </select>
        </label>
        <button type="button" onClick={() => setPaused(paused === null ? items.value : null)}>
          {paused === null ? "Pause" : fresh > 0 ? `Go on (${fresh} new)` : "Go on"}
        </button>
        <button
          type="button"
          class="quiet"
          disabled={items.value.length === 0}
          onClick={() => {
            items.value = [];
            setPaused(null);
          }}
        >
          Clear
        </button>
      </div>
      {list.length === 0 ? (
        <Empty title="Waiting for transactions">
          <p>Every transaction on any branch of this database appears here the moment it is committed.</p>
        </Empty>
      ) : (
        <ol class="feed" aria-live="off">
          {list.map((item) => (
            <Entry key={item.key} item={item} />
          ))}
        </ol>
      )}
    </div>
  );
}

const BARS = 60;

/** Transactions a second over the last minute. */
function Rate() {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  const counts = new Array<number>(BARS).fill(0);
  for (const at of arrivals.value) {
    const age = Math.floor((now - at) / 1000);
    if (age < BARS) counts[BARS - 1 - Math.max(0, age)]!++;
  }
  const most = Math.max(1, ...counts);
  const total = counts.reduce((sum, each) => sum + each, 0);
  return (
    <span class="rate">
      <svg viewBox={`0 0 ${BARS * 2} 20`} aria-hidden="true">
        {counts.map((each, at) => (
          <rect x={at * 2} y={20 - (each / most) * 20} width="1.4" height={(each / most) * 20} />
        ))}
      </svg>
      <span class="faint">{count(total, "transaction")} in the last minute</span>
    </span>
  );
}

function summary(rows: Value[]): string {
  const names = new Map<string, number>();
  for (const row of rows as Value[][]) {
    const name = String(row[1]);
    if (name !== ":db/txInstant") names.set(name, (names.get(name) ?? 0) + 1);
  }
  const shown = [...names].slice(0, 4).map(([name, times]) => (times > 1 ? `${name} ×${times}` : name));
  return shown.join("  ") + (names.size > 4 ? "  …" : "");
}

/** What a transaction says of itself in words. */
function noteOf(report: Struct): string {
  const words = ((report.tx_data ?? []) as Value[][]).filter(
    (row) => row[0] === report.tx && typeof row[2] === "string",
  );
  return String(words.find((row) => /note|message|doc|subject|why/.test(String(row[1])))?.[2] ?? "");
}

function Entry({ item }: { item: Item }) {
  const [open, setOpen] = useState(false);
  const { report } = item;
  if (item.kind === "gap") {
    return (
      <li class="gap">
        {report.lost === undefined
          ? "The connection was interrupted here; transactions of that time are in the time slider and the graph."
          : `${count(Number(report.lost), "report")} came faster than they could be shown.`}
      </li>
    );
  }
  if (item.kind === "rejected") {
    const error = report.rejected as Value;
    const known = error !== null && isStruct(error) ? error : {};
    return (
      <li class="rejected">
        <div class="feed-head">
          <time>{instantLabel(item.at).slice(11)}</time>
          <span class="head">{item.branch}</span>
          <span class="error-code">{String(known.code ?? "rejected")}</span>
          <span>{String(known.message ?? "")}</span>
          {report.id != null && <code class="faint">{String(report.id)}</code>}
        </div>
      </li>
    );
  }
  const rows = (report.tx_data ?? []) as Value[];
  const total = Number(report.datoms ?? rows.length);
  const plus = (rows as Value[][]).filter((row) => row[4] === true).length;
  return (
    <li>
      <div class="feed-head">
        <button
          type="button"
          class="disclose"
          aria-expanded={open}
          aria-label={`datoms of transaction ${shortTx(Number(report.tx))}`}
          onClick={() => setOpen(!open)}
        >
          {open ? "▾" : "▸"}
        </button>
        <time title={instantLabel(report.instant instanceof Date ? report.instant : item.at)}>
          {instantLabel(item.at).slice(11)}
        </time>
        <span class="head">{item.branch}</span>
        <EntityLink id={Number(report.tx)} />
        {report.large === true ? (
          <span class="faint">too large to be shown here</span>
        ) : (
          <>
            <span class="plus-count">+{plus}</span>
            <span class="minus-count">{rows.length > plus ? `−${rows.length - plus}` : ""}</span>
            {total > rows.length && <span class="faint">of {total.toLocaleString("en")}</span>}
            <span>{noteOf(report)}</span>
            <code class="summary">{summary(rows)}</code>
          </>
        )}
        {typeof report.id === "string" && (
          <span class="faint">
            id <Shown value={report.id} />
          </span>
        )}
      </div>
      {open && <Datoms rows={rows} total={total} />}
    </li>
  );
}
