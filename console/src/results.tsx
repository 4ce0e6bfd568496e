// An answer as a table, EDN or JSON.

import { useEffect, useMemo, useState } from "preact/hooks";
import { Code } from "./code";
import type { Rows } from "./query-run";
import { ROWS_MAX } from "./query-run";
import { CopyButton, EntityLink, Shown } from "./shown";
import { compare, isNumber, toEdn, toJson, toText, type Value } from "./values";

const PAGE = 100;
/** Rows by which a column is known as one of numbers. */
const LOOKED_AT = 200;
const TEXT_MAX = 400_000;

export interface Sorting {
  column: number;
  descending: boolean;
}

interface TableProperties {
  found: Rows;
  sorting: Sorting | null;
  onSort: (sorting: Sorting | null) => void;
}

function sorted(rows: Value[][], sorting: Sorting | null): Value[][] {
  if (sorting === null) return rows;
  const { column, descending } = sorting;
  const absent = rows.filter((row) => row[column] === null);
  const there = rows.filter((row) => row[column] !== null);
  there.sort((left, right) => compare(left[column] ?? null, right[column] ?? null) * (descending ? -1 : 1));
  return [...there, ...absent];
}

/** Rows of an answer, a hundred a page; a click on a heading sorts. */
export function ResultTable({ found, sorting, onSort }: TableProperties) {
  const [page, setPage] = useState(0);
  // the service has sorted already what does not fit here as a whole
  const rows = useMemo(
    () => (found.cut ? found.rows : sorted(found.rows, sorting)),
    [found, found.cut ? null : sorting],
  );
  const pages = Math.max(1, Math.ceil(rows.length / PAGE));
  useEffect(() => setPage((at) => Math.min(at, pages - 1)), [pages]);
  const shown = rows.slice(page * PAGE, (page + 1) * PAGE);
  const numeric = found.columns.map((_, at) => {
    const values = found.rows.slice(0, LOOKED_AT).flatMap((row) => (row[at] === null ? [] : [row[at]!]));
    return values.length > 0 && values.every(isNumber) && !found.entities[at];
  });
  const next = (column: number): Sorting | null => {
    if (sorting?.column !== column) return { column, descending: false };
    return sorting.descending ? null : { column, descending: true };
  };
  return (
    <div class="result">
      <div class="scroll" tabIndex={0} role="region" aria-label="rows of the answer">
        <table class="rows">
          <thead>
            <tr>
              <th class="ordinal" scope="col">
                <span class="sr">row</span>
              </th>
              {found.columns.map((name, at) => {
                const mine = sorting?.column === at ? sorting : null;
                return (
                  <th
                    scope="col"
                    class={numeric[at] ? "numeric" : ""}
                    aria-sort={mine === null ? "none" : mine.descending ? "descending" : "ascending"}
                  >
                    <button type="button" onClick={() => onSort(next(at))} title="sort">
                      {name}
                      <span class="arrow" aria-hidden="true">
                        {mine === null ? "" : mine.descending ? "↓" : "↑"}
                      </span>
                    </button>
                  </th>
                );
              })}
              <th class="filler" aria-hidden="true" />
            </tr>
          </thead>
          <tbody>
            {shown.map((row, at) => (
              <tr key={page * PAGE + at}>
                <td class="ordinal">{page * PAGE + at + 1}</td>
                {row.map((value, column) => (
                  <td class={numeric[column] ? "numeric" : ""}>
                    {found.entities[column] && typeof value === "number" ? (
                      <EntityLink id={value} />
                    ) : (
                      <Shown value={value} />
                    )}
                  </td>
                ))}
                <td class="filler" />
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {found.cut && (
        <p class="note">
          These are the first {ROWS_MAX.toLocaleString("en")} rows; there are more. Sorting by a column
          asks the service again. A query map may carry <code>:limit</code> and <code>:offset</code>.
        </p>
      )}
      {pages > 1 && <Pager page={page} pages={pages} total={rows.length} onPage={setPage} />}
    </div>
  );
}

interface PagerProperties {
  page: number;
  pages: number;
  total: number;
  onPage: (page: number) => void;
}

function Pager({ page, pages, total, onPage }: PagerProperties) {
  const first = page * PAGE + 1;
  const last = Math.min(total, first + PAGE - 1);
  return (
    <nav class="pager" aria-label="pages of rows">
      <button type="button" class="quiet" disabled={page === 0} onClick={() => onPage(0)}>
        First
      </button>
      <button type="button" class="quiet" disabled={page === 0} onClick={() => onPage(page - 1)}>
        ‹ Previous
      </button>
      <span aria-live="polite">
        {first.toLocaleString("en")}–{last.toLocaleString("en")} of {total.toLocaleString("en")}
      </span>
      <button type="button" class="quiet" disabled={page === pages - 1} onClick={() => onPage(page + 1)}>
        Next ›
      </button>
      <button type="button" class="quiet" disabled={page === pages - 1} onClick={() => onPage(pages - 1)}>
        Last
      </button>
    </nav>
  );
}

/** A single value, large. */
export function SingleValue({ found }: { found: Rows }) {
  const value = found.rows[0]?.[0] ?? null;
  return (
    <div class="single">
      <span class="single-name">{found.columns[0]}</span>
      {found.entities[0] && typeof value === "number" ? <EntityLink id={value} /> : <Shown value={value} />}
    </div>
  );
}

export function asEdn(found: Rows): string {
  if (!Array.isArray(found.result) || found.kind === "tuple" || found.kind === "scalar") {
    return toEdn(found.result);
  }
  const [open, close] = found.kind === "set" ? ["#{", "}"] : ["[", "]"];
  return open + found.result.map((row) => toEdn(row, open.length)).join(`\n${" ".repeat(open.length)}`) + close;
}

export function asJson(found: Rows): string {
  if (!Array.isArray(found.result) || found.kind === "tuple" || found.kind === "scalar") {
    return JSON.stringify(toJson(found.result), null, 2);
  }
  return `[\n${found.result.map((row) => `  ${JSON.stringify(toJson(row))}`).join(",\n")}\n]`;
}

export function asCsv(found: Rows): string {
  const cell = (text: string) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = [found.columns, ...found.rows.map((row) => row.map((value) => (value === null ? "" : toText(value))))];
  return lines.map((line) => line.map(cell).join(",")).join("\n");
}

/** The whole answer as text. */
export function ResultText({ text, label, code = false }: { text: string; label: string; code?: boolean }) {
  const cut = text.length > TEXT_MAX;
  return (
    <div class="result">
      <div class="scroll" tabIndex={0} role="region" aria-label={label}>
        <pre class="text">{code && !cut ? <Code text={text} /> : cut ? text.slice(0, TEXT_MAX) : text}</pre>
      </div>
      {cut && (
        <p class="note">
          The text is long; this is its beginning. <CopyButton text={() => text} label="Copy all of it" />
        </p>
      )}
    </div>
  );
}

