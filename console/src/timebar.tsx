// The point in time that every page looks at: a slider over the transactions, and the history switch.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { step } from "./keys";
import { go } from "./route";
import { instantLabel } from "./shown";
import {
  asOf,
  entry,
  pointAt,
  positionOf,
  readTimePoint,
  shortTx,
  transactions,
  withHistory,
  type Transactions,
} from "./state";

const BARS_MAX = 240;
const SETTLE_MS = 120;

/** Heights (0 to 1) of bars over the transactions: how many datoms each, or each few, made. */
function heights({ ids, sizes }: Transactions): number[] {
  const bars = Math.min(BARS_MAX, ids.length);
  const sums = new Array<number>(bars).fill(0);
  for (const [at, id] of ids.entries()) {
    sums[Math.floor((at * bars) / ids.length)]! += sizes?.get(id) ?? 1;
  }
  // bars that are all alike stay low
  const most = Math.max(1, ...sums, (3 * sums.reduce((total, sum) => total + sum, 0)) / Math.max(1, bars));
  return sums.map((sum) => 0.1 + 0.9 * Math.sqrt(sum / most));
}

/** Labels of days, months or years along the slider, where they begin. */
function ticks({ ms }: Transactions): { at: number; text: string }[] {
  if (ms.length < 2) return [];
  const spread = Math.max(...ms) - Math.min(...ms);
  const day = 86_400_000;
  const length = spread > 900 * day ? 4 : spread > 45 * day ? 7 : spread > day ? 10 : 16;
  const found: { at: number; text: string }[] = [];
  let last = "";
  for (const [at, each] of ms.entries()) {
    const text = new Date(each).toISOString().slice(0, length).replace("T", " ");
    const share = (at + 0.5) / ms.length;
    if (text !== last && share - (found.at(-1)?.at ?? -1) > 0.11 && share < 0.95) found.push({ at: share, text });
    last = text;
  }
  return found;
}

export function TimeBar() {
  const known = transactions.value;
  const total = known.ids.length;
  const chosen = asOf.value;
  const position = positionOf(chosen);
  const [sliding, setSliding] = useState<number | null>(null);
  const timer = useRef(0);
  const bars = useMemo(() => heights(known), [known]);
  const labels = useMemo(() => ticks(known), [known]);
  const wide = Math.min(0.78, bars.length * 0.01); // of a few transactions the bars stay slim
  const shown = sliding ?? position;
  const isNow = sliding === null ? chosen === null : shown >= total;

  const slide = (to: number) => {
    setSliding(to);
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => {
      setSliding(null);
      go({ params: { t: pointAt(to) } }, true);
    }, SETTLE_MS);
  };

  if (entry.value !== null && !entry.value.keep_history) {
    return (
      <section class="time none" aria-label="point in time">
        <span class="faint">This database keeps no history: only its present can be shown.</span>
      </section>
    );
  }
  const id = known.ids[shown - 1];
  const ms = known.ms[shown - 1];
  const what = isNow
    ? "now"
    : sliding === null && typeof chosen === "string"
      ? `as of ${instantLabel(new Date(chosen))}`
      : id === undefined
        ? `before ${known.older ? "the transactions that are listed" : "the first transaction"}`
        : `as of tx ${shortTx(id)}, ${instantLabel(ms!)}`;
  return (
    <section class={`time ${isNow ? "" : "past"}`} aria-label="point in time">
      <div class="steps">
        <button type="button" onClick={() => step(-1)} disabled={shown <= 0} title="one transaction back ( [ )">
          <span aria-hidden="true">‹</span>
          <span class="sr">one transaction back</span>
        </button>
        <button type="button" onClick={() => step(1)} disabled={isNow} title="one transaction forward ( ] )">
          <span aria-hidden="true">›</span>
          <span class="sr">one transaction forward</span>
        </button>
      </div>
      <div
        class="slider"
        title={
          known.older
            ? `The newest ${total.toLocaleString("en")} transactions; older ones by number or instant, on the right.`
            : undefined
        }
      >
        <svg class="activity" viewBox={`0 0 ${Math.max(1, bars.length)} 1`} preserveAspectRatio="none" aria-hidden="true">
          {bars.map((height, at) => (
            <rect
              class={(at + 1) / bars.length <= shown / Math.max(1, total) + 1e-9 ? "in" : ""}
              x={at + 1 - wide}
              y={1 - height}
              width={wide}
              height={height}
            />
          ))}
        </svg>
        <input
          type="range"
          min={0}
          max={total}
          step={1}
          value={shown}
          disabled={total === 0}
          aria-label="transactions that are looked at"
          aria-valuetext={what}
          onInput={(event) => slide(Number(event.currentTarget.value))}
        />
        <div class="ticks" aria-hidden="true">
          {labels.map(({ at, text }) => (
            <span style={{ left: `${at * 100}%` }}>{text}</span>
          ))}
        </div>
      </div>
      <Moment isNow={isNow} id={id} ms={ms} text={what} chosen={sliding === null ? chosen : null} />
      <button
        type="button"
        class="now"
        onClick={() => go({ params: { t: null } }, true)}
        disabled={isNow}
        title="the present ( n )"
      >
        Now
      </button>
      <label class="check" title="every assertion and retraction, not only what holds ( h )">
        <input
          type="checkbox"
          checked={withHistory.value}
          onChange={(event) => go({ params: { h: event.currentTarget.checked ? "1" : null } }, true)}
        />
        History
      </label>
    </section>
  );
}

interface MomentProperties {
  isNow: boolean;
  id: number | undefined;
  ms: number | undefined;
  text: string;
  chosen: number | string | null;
}

/** The instant that is shown; a click lets one be typed. */
function Moment({ isNow, id, ms, text, chosen }: MomentProperties) {
  const [editing, setEditing] = useState<string | null>(null);
  const [wrong, setWrong] = useState(false);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    if (editing !== null) field.current?.focus();
  }, [editing !== null]);
  if (editing !== null) {
    const done = (event: Event) => {
      event.preventDefault();
      const point = readTimePoint(editing);
      if (point === null) {
        setWrong(true);
        return;
      }
      setEditing(null);
      go({ params: { t: point } });
    };
    return (
      <form class="moment" onSubmit={done}>
        <input
          ref={field}
          type="text"
          aria-label="transaction or instant"
          aria-invalid={wrong}
          placeholder="42 or 2026-03-01 14:00"
          title="the number of a transaction, or an instant in UTC"
          value={editing}
          onInput={(event) => {
            setEditing(event.currentTarget.value);
            setWrong(false);
          }}
          onKeyDown={(event) => {
            if (event.key === "Escape") setEditing(null);
          }}
          onBlur={() => setEditing(null)}
        />
      </form>
    );
  }
  return (
    <button type="button" class="moment" onClick={() => setEditing("")} title="enter a transaction or an instant">
      <span class="moment-main">
        {isNow ? "Now" : typeof chosen === "string" ? instantLabel(new Date(chosen)) : ms === undefined ? "Before" : instantLabel(ms)}
      </span>
      <span class="moment-sub">{id === undefined ? "" : `tx ${shortTx(id)}`}</span>
      <span class="sr">{text}</span>
    </button>
  );
}
