// The attributes of a database, by namespace, with the number of facts each has.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ask } from "./api";
import { useAsk } from "./hooks";
import { link, route } from "./route";
import type { Attribute } from "./schema";
import { Busy, count, Empty } from "./shown";
import { asOf, branch, currentView, database, headInfo, news, schema } from "./state";
import { Keyword, type Value } from "./values";

const COUNTED_DATOMS_MAX = 3_000_000;

function grouped(attributes: Attribute[]): [string, Attribute[]][] {
  const groups = new Map<string, Attribute[]>();
  for (const attribute of attributes) {
    const space = attribute.ident.includes("/") ? attribute.ident.split("/")[0]! : "";
    groups.set(space, [...(groups.get(space) ?? []), attribute]);
  }
  return [...groups].sort(([left], [right]) => (left < right ? -1 : 1));
}

async function countFacts(stop: AbortSignal): Promise<Map<string, number>> {
  const query = "[:find ?a (count ?v) :with ?e :where [?e ?a ?v]]";
  const body = { query, view: currentView(false), timeout_ms: 5000 };
  const answer = await ask(database.value!, branch.value, "query", body, stop);
  return new Map(
    (answer.result as [Value, number][]).map(([attribute, number]) => [
      attribute instanceof Keyword ? attribute.text : String(attribute),
      number,
    ]),
  );
}

export function SchemaPage() {
  const [filter, setFilter] = useState("");
  const chosen = route.value.params.get("a");
  const small = Number(headInfo.value?.datoms ?? Infinity) <= COUNTED_DATOMS_MAX;
  const counts = useAsk(
    small ? [database.value, branch.value, asOf.value, news.value] : null,
    countFacts,
  );
  const read = schema.value;
  const matches = (attribute: Attribute) =>
    `:${attribute.ident} ${attribute.type ?? ""} ${attribute.doc ?? ""}`
      .toLowerCase()
      .includes(filter.toLowerCase());
  const groups = useMemo(() => grouped(read.attributes.filter(matches)), [read, filter]);
  const idents = read.idents.filter(matches);
  const host = useRef<HTMLDivElement>(null);
  useEffect(() => {
    host.current?.querySelector(".chosen")?.scrollIntoView({ block: "center" });
  }, [chosen, read]);
  const most = Math.max(1, ...(counts.value?.values() ?? []));
  return (
    <div class="schema-page" ref={host}>
      <Busy on={counts.busy} />
      <div class="bar">
        <input
          type="search"
          aria-label="filter attributes"
          placeholder="filter attributes"
          value={filter}
          onInput={(event) => setFilter(event.currentTarget.value)}
        />
        <span class="facts">
          <b>{count(read.attributes.length, "attribute")}</b>
          {headInfo.value !== null && <span>{count(Number(headInfo.value.datoms), "datom")} now</span>}
        </span>
      </div>
      {read.attributes.length === 0 && (
        <Empty title="No attribute is declared">
          <p>
            A database with a flexible schema takes any attribute; declared ones are listed here.
          </p>
        </Empty>
      )}
      <div class="groups">
        {groups.map(([space, attributes]) => (
          <section>
            <h2>{space === "" ? "without a namespace" : space}</h2>
            <table class="schema">
              <thead class="sr">
                <tr>
                  <th scope="col">attribute</th>
                  <th scope="col">type</th>
                  <th scope="col">properties</th>
                  <th scope="col">facts</th>
                </tr>
              </thead>
              <tbody>
                {attributes.map((attribute) => (
                  <tr class={attribute.ident === chosen ? "chosen" : ""}>
                    <th scope="row">
                      <a
                        class="v v-kw"
                        href={link({
                          page: "query",
                          fresh: true,
                          params: { q: queryFor(attribute) },
                        })}
                        title="query its facts"
                      >
                        :{attribute.ident}
                      </a>
                    </th>
                    <td class="type">
                      {attribute.type ?? "any"}
                      {attribute.many && <span class="many" title="many values"> ∗</span>}
                    </td>
                    <td>
                      <div class="chips">
                        <Tags attribute={attribute} />
                        {attribute.doc !== null && <span class="doc">{attribute.doc}</span>}
                      </div>
                    </td>
                    <td class="numeric">
                      {counts.value !== null && (
                        <>
                          <svg class="amount" viewBox="0 0 60 6" preserveAspectRatio="none" aria-hidden="true">
                            <rect
                              width={(Math.log1p(counts.value.get(attribute.ident) ?? 0) / Math.log1p(most)) * 60}
                              height="6"
                              rx="1"
                            />
                          </svg>
                          {(counts.value.get(attribute.ident) ?? 0).toLocaleString("en")}
                        </>
                      )}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </section>
        ))}
        {idents.length > 0 && (
          <section>
            <h2>idents that are no attributes</h2>
            <div class="chips pad">
              {idents.map((ident) => (
                <a
                  class="entity"
                  href={link({ page: "entity", argument: String(ident.id), fresh: true })}
                >
                  :{ident.ident}
                </a>
              ))}
            </div>
          </section>
        )}
      </div>
    </div>
  );
}

function queryFor(attribute: Attribute): string {
  return `[:find ?e ?value\n :where [?e :${attribute.ident} ?value]]`;
}

function Tags({ attribute }: { attribute: Attribute }) {
  const tags = [
    attribute.unique === null ? null : `unique ${attribute.unique}`,
    attribute.indexed ? "index" : null,
    attribute.component ? "component" : null,
    attribute.noHistory ? "no history" : null,
    ...attribute.rest.map(([key, value]) => `${key} ${value}`),
  ].filter((tag) => tag !== null);
  return (
    <>
      {tags.map((tag) => (
        <span class="tag" title={tag}>
          {tag}
        </span>
      ))}
    </>
  );
}
