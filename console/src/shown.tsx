// Small pieces that every page uses: values, errors, waiting, copying.

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { ServiceError, Unreachable } from "./api";
import { Code } from "./code";
import { link } from "./route";
import { shortTx, TX_BASE } from "./state";
import {
  instantText,
  isNumber,
  Keyword,
  pairsOf,
  toEdn,
  toLine,
  type Value,
} from "./values";

function classOf(value: Value): string {
  if (value === null) return "v-nil";
  if (typeof value === "string") return "v-str";
  if (typeof value === "boolean") return "v-bool";
  if (isNumber(value)) return "v-num";
  if (value instanceof Date) return "v-inst";
  if (value instanceof Keyword) return "v-kw";
  return "v-other";
}

const FOLDED = 240;

/** One value.  Strings stand without quotation marks, long ones are folded. */
export function Shown({ value }: { value: Value }) {
  const [open, setOpen] = useState(false);
  const nested =
    Array.isArray(value) || pairsOf(value) !== null || (value !== null && typeof value === "object" && "items" in value);
  const text = nested
    ? toEdn(value, 0, 60)
    : typeof value === "string"
      ? value
      : value instanceof Date
        ? instantText(value)
        : toLine(value);
  const lines = text.split("\n").length;
  const long = text.length > FOLDED || lines > 6;
  const folded = long && !open;
  const cut = folded ? `${text.split("\n").slice(0, 5).join("\n").slice(0, FOLDED)}…` : text;
  return (
    <span class={`v ${nested ? "v-edn" : classOf(value)}`}>
      {value === "" ? <span class="faint">empty string</span> : nested ? <Code text={cut} /> : cut}
      {long && (
        <button type="button" class="fold" onClick={() => setOpen(!open)}>
          {open ? "less" : `all ${text.length.toLocaleString("en")} characters`}
        </button>
      )}
    </span>
  );
}

/** The id of an entity or transaction, which leads to its page. */
export function EntityLink({ id, label }: { id: number; label?: string | null | undefined }) {
  return (
    <a class="entity" href={link({ page: "entity", argument: String(id), fresh: true })} title={`entity ${id}`}>
      {id >= TX_BASE ? `tx ${shortTx(id)}` : id}
      {label != null && <span class="entity-label">{label}</span>}
    </a>
  );
}

export function instantLabel(instant: Date | number | null): string {
  if (instant === null) return "";
  const date = typeof instant === "number" ? new Date(instant) : instant;
  return instantText(date).replace("T", " ").replace("Z", "");
}

export function ErrorNote({ error, children }: { error: unknown; children?: ComponentChildren }) {
  if (error === null || error === undefined) return null;
  if (error instanceof Unreachable) {
    return (
      <div class="note" role="status">
        The service cannot be reached; this page goes on by itself when it is back.
      </div>
    );
  }
  const known = error instanceof ServiceError ? error : null;
  const data = known === null ? null : pairsOf(known.data);
  return (
    <div class="error" role="alert">
      <div class="error-head">
        <span class="error-code">{known?.code ?? "Error"}</span>
        {known?.error != null && <code>:{known.error}</code>}
      </div>
      <p>{error instanceof Error ? error.message : String(error)}</p>
      {data !== null && data.length > 0 && (
        <dl class="error-data">
          {data.map(([key, value]) => (
            <>
              <dt>{String(key)}</dt>
              <dd>
                <Shown value={value} />
              </dd>
            </>
          ))}
        </dl>
      )}
      {children}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <h2 class="empty-title">{title}</h2>
      {children}
    </div>
  );
}

/** A thin line at the top of a panel while it waits. */
export function Busy({ on }: { on: boolean }) {
  return <div class={on ? "busy on" : "busy"} role="progressbar" aria-hidden={!on} aria-label="waiting" />;
}

export function CopyButton({ text, label = "Copy" }: { text: () => string; label?: string }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text());
      setDone(true);
      setTimeout(() => setDone(false), 1200);
    } catch {
      // the browser does not allow it; there is nothing to undo
    }
  };
  return (
    <button type="button" class="quiet" onClick={() => void copy()} aria-live="polite">
      {done ? "Copied" : label}
    </button>
  );
}

export function count(number: number, one: string, many = `${one}s`): string {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function milliseconds(ms: number): string {
  return ms < 10 ? `${ms.toFixed(1)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
