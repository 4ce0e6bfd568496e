// What a transaction did, read back from the database value of the branch or commit that has it.

import { ask } from "./api";
import { Datoms, type DatomRow } from "./datoms";
import { labelsOf } from "./entity-data";
import { useAsk } from "./hooks";
import { Busy, ErrorNote } from "./shown";
import { branch, database, entry, schema } from "./state";
import type { Struct, Value } from "./values";

interface Properties {
  tx: number;
  title: string;
  /** Where to look: a branch or a commit; without it on the branch that is shown. */
  view?: Record<string, unknown>;
}

export function TransactionFacts({ tx, title, view = {} }: Properties) {
  const name = database.value!;
  const keeps = entry.value?.keep_history !== false;
  const { value, error, busy } = useAsk(keeps ? [name, branch.value, tx, view] : null, async (stop) => {
    const answer = await ask(name, branch.value, "tx-range", { from: tx, to: tx + 1, view }, stop);
    return (answer.result as Struct[]).flatMap((each) => each.datoms as Value[]);
  });
  const isNamed = value !== null && schema.value.labels.length > 0;
  const labels = useAsk(isNamed ? [name, branch.value, tx, view, "labels"] : null, (stop) => {
    const rows = value as unknown as DatomRow[];
    const refs = rows.filter(([, a]) => schema.value.attribute(a.text)?.isRef).map(([, , v]) => Number(v));
    return labelsOf(name, branch.value, [...rows.map(([e]) => e), ...refs], schema.value, view, stop);
  });
  return (
    <section class="transaction">
      <Busy on={busy} />
      <h2>{title}</h2>
      <ErrorNote error={error} />
      {!keeps && <p class="faint">The database keeps no history, so nobody knows any more.</p>}
      {value !== null &&
        (value.length === 0 ? (
          <p class="faint">
            No facts of it can be read here: it made none, or they were purged, or it is not on this line.
          </p>
        ) : (
          <Datoms rows={value} labels={labels.value ?? undefined} />
        ))}
    </section>
  );
}
