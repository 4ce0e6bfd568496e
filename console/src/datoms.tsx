// Datoms of a transaction, by entity.

import { useState } from "preact/hooks";
import { schema, TX_BASE } from "./state";
import { EntityLink, Shown } from "./shown";
import { Keyword, type Value } from "./values";

const FIRST = 100;

export type DatomRow = [e: number, a: Keyword, v: Value, tx: number, added: boolean];

interface Properties {
  rows: Value[];
  /** How many datoms there are, where `rows` may be a part of them. */
  total?: number;
  /** Names of entities. */
  labels?: Map<number, string> | undefined;
}

/** What a transaction asserted (+) and retracted (−); facts about the transaction itself come first. */
export function Datoms({ rows, total, labels }: Properties) {
  const [all, setAll] = useState(false);
  const datoms = rows as unknown as DatomRow[];
  const sorted = [...datoms].sort(inOrder);
  const shown = all ? sorted : sorted.slice(0, FIRST);
  let last: number | null = null;
  return (
    <>
      <table class="datoms">
        <thead>
          <tr>
            <th scope="col">
              <span class="sr">change</span>
            </th>
            <th scope="col">entity</th>
            <th scope="col">attribute</th>
            <th scope="col">value</th>
          </tr>
        </thead>
        <tbody>
          {shown.map(([e, a, v, , added]) => {
            const first = e !== last;
            last = e;
            return (
              <tr class={`${added ? "plus" : "minus"}${first ? " first" : ""}`}>
                <td class="sign" aria-label={added ? "asserted" : "retracted"}>
                  {added ? "+" : "−"}
                </td>
                <td class="id">{first && <EntityLink id={e} label={labels?.get(e)} />}</td>
                <td>
                  <span class="v v-kw">{String(a)}</span>
                </td>
                <td>
                  {schema.value.attribute(a.text)?.isRef && typeof v === "number" ? (
                    <EntityLink id={v} label={labels?.get(v)} />
                  ) : (
                    <Shown value={v} />
                  )}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {!all && sorted.length > FIRST && (
        <button type="button" class="quiet" onClick={() => setAll(true)}>
          Show all {sorted.length.toLocaleString("en")} datoms
        </button>
      )}
      {total !== undefined && total > datoms.length && (
        <p class="faint">
          {(total - datoms.length).toLocaleString("en")} more datoms did not travel with the report.
        </p>
      )}
    </>
  );
}

function place(datom: DatomRow): number {
  return datom[0] >= TX_BASE ? -1 : datom[0];
}

/** By entity and attribute; what went before what came. */
function inOrder(left: DatomRow, right: DatomRow): number {
  if (place(left) !== place(right)) return place(left) - place(right);
  if (left[1].text !== right[1].text) return left[1].text < right[1].text ? -1 : 1;
  return Number(left[4]) - Number(right[4]);
}
