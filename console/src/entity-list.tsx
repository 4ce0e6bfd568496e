// Ways to an entity: by id, ident or lookup ref, or from the list of those that have an attribute.

import { useEffect, useState } from "preact/hooks";
import { listEntities } from "./entity-data";
import { useAsk } from "./hooks";
import { go, link, route } from "./route";
import { Busy, count, ErrorNote } from "./shown";
import { asOf, branch, currentView, database, news, readTimePoint, schema } from "./state";
import { load, save } from "./stored";
import { toText } from "./values";

const SETTLE_MS = 200;

export function EntityList() {
  const name = database.value!;
  const attributes = schema.value.attributes;
  const preferred = schema.value.labels[0]?.ident ?? attributes[0]?.ident ?? "";
  const [attribute, setAttribute] = useState<string>(() => load(`listed:${name}`, ""));
  const chosen = schema.value.attribute(attribute) !== undefined ? attribute : preferred;
  const [typed, setTyped] = useState("");
  const [filter, setFilter] = useState("");
  const [wanted, setWanted] = useState("");
  const [refused, setRefused] = useState(false);

  useEffect(() => setRefused(false), [wanted]);
  useEffect(() => {
    const timer = setTimeout(() => setFilter(typed), SETTLE_MS);
    return () => clearTimeout(timer);
  }, [typed]);

  const { value, error, busy } = useAsk(
    chosen === "" ? null : [name, branch.value, chosen, filter, asOf.value, news.value],
    (stop) => listEntities(name, branch.value, chosen, filter, currentView(false), stop),
  );
  const shown = value?.found ?? [];

  const open = () => {
    const text = wanted.trim();
    if (text === "") return;
    if (/^tx\s*\d|^\d+\/\d+$/.test(text)) {
      const tx = readTimePoint(text);
      if (typeof tx === "number") go({ page: "entity", argument: String(tx) });
      return;
    }
    if (/^\d+$|^[[:]/.test(text)) go({ page: "entity", argument: text });
    else setRefused(true);
  };

  return (
    <div class="list-page">
      <Busy on={busy} />
      <form
        class="row"
        onSubmit={(event) => {
          event.preventDefault();
          open();
        }}
      >
        <input
          type="text"
          aria-label="id, ident or lookup ref"
          placeholder='17, :an/ident or [:person/email "…"]'
          spellcheck={false}
          autocomplete="off"
          value={wanted}
          onInput={(event) => setWanted(event.currentTarget.value)}
        />
        <button type="submit">Open</button>
      </form>
      {refused && (
        <p class="note" role="alert">
          An entity is named by its id, by an ident such as <code>:color/red</code> or by a lookup ref in
          brackets.
        </p>
      )}
      <div class="row">
        <label class="grow">
          <span class="sr">attribute</span>
          <select
            value={chosen}
            onChange={(event) => {
              setAttribute(event.currentTarget.value);
              save(`listed:${name}`, event.currentTarget.value);
            }}
          >
            {attributes.map((each) => (
              <option value={each.ident}>:{each.ident}</option>
            ))}
          </select>
        </label>
        <input
          type="search"
          aria-label="filter"
          placeholder="filter"
          value={typed}
          onInput={(event) => setTyped(event.currentTarget.value)}
        />
      </div>
      <ErrorNote error={error} />
      {attributes.length === 0 && <p class="faint pad">The schema declares no attributes to list by.</p>}
      <ul class="entities">
        {shown.map(({ id, value: each }) => (
          <li>
            <a
              href={link({ page: "entity", argument: String(id), fresh: true })}
              aria-current={route.value.argument === String(id) ? "true" : undefined}
            >
              <span class="entity-name">{toText(each)}</span>
              <span class="faint">{id}</span>
            </a>
          </li>
        ))}
      </ul>
      {value !== null && (
        <p class="faint pad">
          {count(shown.length, "fact")}
          {value.more && "; there are more than these, which a filter finds"}
        </p>
      )}
    </div>
  );
}
