// The entity browser: find an entity, see its facts, their history, what refers to it.

import { useState } from "preact/hooks";
import { BACK_MAX, loadEntity, type Entity, type Facts } from "./entity-data";
import { EntityList } from "./entity-list";
import { useAsk } from "./hooks";
import { Lifeline, type Span } from "./lifeline";
import { go, link, route } from "./route";
import { Busy, count, Empty, EntityLink, ErrorNote, instantLabel, Shown } from "./shown";
import { Split } from "./split";
import { asOf, branch, currentView, database, entry, instantOf, news, schema, shortTx, transactions, TX_BASE } from "./state";
import { TransactionFacts } from "./transaction";
import { toLine, toText, type Value } from "./values";

export function EntityPage() {
  const reference = route.value.argument;
  return (
    <Split
      name="entity"
      initial={28}
      left={<EntityList />}
      right={reference === null ? <Nobody /> : <EntityDetail key={reference} reference={reference} />}
      leftLabel="Entities"
      rightLabel="Entity"
    />
  );
}

function Nobody() {
  return (
    <Empty title="No entity chosen">
      <p>
        Choose one from the list, or enter an id such as <code>17</code>, an ident or a lookup ref such as{" "}
        <code>[:person/email "ada@example.org"]</code>.
      </p>
    </Empty>
  );
}

function EntityDetail({ reference }: { reference: string }) {
  const name = database.value!;
  const keeps = entry.value?.keep_history !== false;
  const key = [name, branch.value, reference, asOf.value, news.value, keeps, schema.value.attributes.length];
  const { value, error, busy } = useAsk<Entity>(key, (stop) =>
    loadEntity(name, branch.value, reference, currentView(false), keeps, schema.value, stop),
  );
  return (
    <div class="entity-page">
      <Busy on={busy} />
      <ErrorNote error={error} />
      {value !== null && <EntityFacts found={value} keeps={keeps} />}
    </div>
  );
}

function spanOf(found: Entity): Span {
  const times = [...found.instants.values()].map((instant) => instant.getTime());
  const last = transactions.value.ms.reduce((most, ms) => Math.max(most, ms), 0);
  const start = Math.min(...times);
  return { start, end: Math.max(last, ...times, start + 1) };
}

function EntityFacts({ found, keeps }: { found: Entity; keeps: boolean }) {
  const isTx = found.id >= TX_BASE;
  const there = found.facts.filter((facts) => facts.values.length > 0);
  const gone = found.facts.filter((facts) => facts.values.length === 0);
  const names = there.flatMap(({ attribute, values }) =>
    schema.value.attribute(attribute)?.unique === "identity" && values.length === 1
      ? [[attribute, toText(values[0]!.value)] as const].filter(([, text]) => text !== found.label)
      : [],
  );
  const at = (tx: number) => (found.instants.get(tx) ?? instantOf(tx) ?? new Date(0)).getTime();
  const span = spanOf(found);
  return (
    <>
      <header class="entity-head">
        <h2 class="title">{isTx ? `Transaction ${shortTx(found.id)}` : (found.label ?? `Entity ${found.id}`)}</h2>
        <p class="faint">
          <code>{found.id}</code>
          {names.map(([attribute, text]) => (
            <>
              {" · "}
              <span title={`:${attribute}`}>{text}</span>
            </>
          ))}
          {keeps && found.instants.size > 0 && ` · since ${instantLabel(span.start).slice(0, 10)}`}
          {asOf.value !== null && " · as of the chosen time"}
        </p>
      </header>
      {found.facts.length === 0 && found.back.length === 0 ? (
        <Empty title="Nothing is known of it">
          <p>
            {asOf.value === null
              ? "No fact has this id as its entity, and none refers to it."
              : "At this point in time there was no such entity; the slider above goes on."}
          </p>
        </Empty>
      ) : (
        <table class="facts-table">
          <thead>
            <tr>
              <th scope="col">attribute</th>
              <th scope="col">value</th>
              <th scope="col">since</th>
              <th scope="col" class="span">
                {keeps && found.instants.size > 0 && (
                  <>
                    <span>
                      <span class="sr">history from </span>
                      {instantLabel(span.start).slice(0, 10)}
                    </span>
                    <span>{instantLabel(span.end).slice(0, 10)}</span>
                  </>
                )}
              </th>
            </tr>
          </thead>
          <tbody>
            {[...there, ...gone].map((facts) => (
              <Row key={facts.attribute} facts={facts} found={found} span={span} at={at} keeps={keeps} />
            ))}
          </tbody>
        </table>
      )}
      {isTx && <TransactionFacts tx={found.id} title="What it did" />}
      {found.back.length > 0 && <Back found={found} />}
    </>
  );
}

interface RowProperties {
  facts: Facts;
  found: Entity;
  span: Span;
  at: (tx: number) => number;
  keeps: boolean;
}

function FactValue({ value, facts, found }: { value: Value; facts: Facts; found: Entity }) {
  return facts.isRef && typeof value === "number" ? (
    <EntityLink id={value} label={found.labels.get(value)} />
  ) : (
    <Shown value={value} />
  );
}

const VALUES_SHOWN = 12;

function Row({ facts, found, span, at, keeps }: RowProperties) {
  const [open, setOpen] = useState(false);
  const changes = new Set(facts.intervals.flatMap(({ from, to }) => (to === null ? [from] : [from, to]))).size;
  const shown = facts.values.slice(0, VALUES_SHOWN);
  const newest = facts.values.reduce((most, { tx }) => Math.max(most, tx), 0);
  return (
    <>
      <tr class={facts.values.length === 0 ? "gone" : ""}>
        <th scope="row">
          <a class="v v-kw" href={link({ page: "schema", params: { a: facts.attribute }, fresh: true })}>
            :{facts.attribute}
          </a>
        </th>
        <td>
          {facts.values.length === 0 && <span class="faint">retracted</span>}
          {shown.map(({ value }) => (
            <div class="value-line">
              <FactValue value={value} facts={facts} found={found} />
            </div>
          ))}
          {facts.values.length > VALUES_SHOWN && (
            <span class="faint">and {facts.values.length - VALUES_SHOWN} more</span>
          )}
        </td>
        <td class="since">
          {newest > 0 && (
            <a
              href={link({ page: "entity", argument: String(newest), fresh: true })}
              title={`transaction ${newest}`}
            >
              {keeps ? instantLabel(at(newest)).slice(0, 16) : `tx ${shortTx(newest)}`}
            </a>
          )}
        </td>
        <td class="line-cell">
          {keeps && changes > 0 && (
            <button
              type="button"
              class="line-button"
              aria-expanded={open}
              aria-label={`history of :${facts.attribute}, ${count(changes, "change")}`}
              onClick={() => setOpen(!open)}
            >
              <Lifeline intervals={facts.intervals} many={facts.many} span={span} at={at} />
              <span class="changes">{changes}</span>
            </button>
          )}
        </td>
      </tr>
      {open && (
        <tr class="history-row">
          <td colSpan={4}>
            <History facts={facts} found={found} at={at} />
          </td>
        </tr>
      )}
    </>
  );
}

function History({ facts, found, at }: Pick<RowProperties, "facts" | "found" | "at">) {
  const changes = new Map<number, { before: Value[]; after: Value[] }>();
  const of = (tx: number) => {
    const known = changes.get(tx) ?? { before: [], after: [] };
    changes.set(tx, known);
    return known;
  };
  for (const { value, from, to } of facts.intervals) {
    of(from).after.push(value);
    if (to !== null) of(to).before.push(value);
  }
  const newest = [...changes].sort(([left], [right]) => right - left);
  return (
    <table class="changes-of">
      <tbody>
        {newest.map(([tx, { before, after }]) => (
          <tr>
            <td class="since">{instantLabel(at(tx))}</td>
            <td>
              {before.map((value) => (
                <span class="before">
                  <span class="sr">retracted </span>
                  <FactValue value={value} facts={facts} found={found} />
                </span>
              ))}
              {after.map((value) => (
                <span class="after">
                  <span class="sr">asserted </span>
                  <FactValue value={value} facts={facts} found={found} />
                </span>
              ))}
            </td>
            <td>
              <EntityLink id={tx} />
              <button type="button" class="quiet" onClick={() => go({ params: { t: tx } })}>
                look then
              </button>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Back({ found }: { found: Entity }) {
  return (
    <section class="back">
      <h2>Referred to by</h2>
      <table class="facts-table">
        <tbody>
          {found.back.map(({ attribute, ids, more }) => (
            <tr>
              <th scope="row">
                <span class="v v-kw">:{attribute}</span>
              </th>
              <td>
                <div class="chips">
                  {ids.map((id) => (
                    <EntityLink id={id} label={found.labels.get(id)} />
                  ))}
                  {more && (
                    <a
                      href={link({
                        page: "query",
                        fresh: true,
                        params: { q: `[:find ?e\n :where [?e :${attribute} ${toLine(found.id)}]]` },
                      })}
                    >
                      more than {BACK_MAX}: ask for all
                    </a>
                  )}
                </div>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
