// The values of an attribute over time as a line of bars, from the entity's first fact to now.

import type { Interval } from "./entity-data";

const WIDTH = 240;
const HEIGHT = 14;
const ROWS_MAX = 4;

export interface Span {
  start: number;
  end: number;
}

interface Properties {
  intervals: Interval[];
  many: boolean;
  span: Span;
  at: (tx: number) => number;
}

/** `at`: milliseconds of a transaction. */
export function Lifeline({ intervals, many, span, at }: Properties) {
  const width = Math.max(1, span.end - span.start);
  const x = (ms: number) => Math.max(0, Math.min(1, (ms - span.start) / width)) * WIDTH;
  const rows = many ? Math.min(ROWS_MAX, Math.max(1, intervals.length)) : 1;
  const height = HEIGHT / rows;
  return (
    <svg class="lifeline" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
      {intervals.map((interval, index) => {
        const from = x(at(interval.from));
        const to = interval.to === null ? WIDTH : x(at(interval.to));
        return (
          <rect
            class={interval.to === null ? "holds" : "held"}
            x={from}
            y={(many ? index % rows : 0) * height + 0.5}
            width={Math.max(1.5, to - from - 1)}
            height={height - 1}
            rx={Math.min(2, height / 3)}
          />
        );
      })}
    </svg>
  );
}
