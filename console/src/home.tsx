// The databases of the service and their branches.

import { about, ask } from "./api";
import { useAsk } from "./hooks";
import { go, hashOf, MAIN_BRANCH } from "./route";
import { Busy, count, Empty, ErrorNote, instantLabel } from "./shown";
import { databases, trouble, type DatabaseEntry } from "./state";
import type { Struct } from "./values";

const TOLD_MAX = 24;
const BRANCHES_SHOWN = 12;

function hrefOf(database: string, branch: string, page: "query" | "graph" = "query"): string {
  return hashOf({ page, database, branch, argument: null, params: new URLSearchParams() });
}

export function HomePage() {
  const list = databases.value;
  const told = list?.slice(0, TOLD_MAX).map((each) => each.database) ?? [];
  const { value: infos, busy } = useAsk(list === null ? null : told, async (stop) => {
    const found = await Promise.all(told.map((name) => ask(name, "_", "info", {}, stop).catch(() => null)));
    return new Map(found.filter((info) => info !== null).map((info) => [String(info.database), info]));
  });
  return (
    <div class="home">
      <Busy on={busy || list === null} />
      <h1>Databases</h1>
      <ErrorNote error={trouble.value} />
      {list !== null && list.length === 0 && <Nothing />}
      {list !== null && list.length > 0 && (
        <div class="scroll-x">
          <table class="databases">
            <thead>
              <tr>
                <th scope="col">name</th>
                <th scope="col" class="numeric">
                  datoms
                </th>
                <th scope="col">branches</th>
                <th scope="col">history</th>
                <th scope="col">schema</th>
                <th scope="col">created</th>
              </tr>
            </thead>
            <tbody>
              {list.map((entry) => (
                <Row key={entry.database} entry={entry} info={infos?.get(entry.database) ?? null} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {about.value !== null && (
        <p class="faint version">
          Natalog {about.value.version}
          {about.value.write ? " · this console may write" : " · this console only reads"}
        </p>
      )}
    </div>
  );
}

function Row({ entry, info }: { entry: DatabaseEntry; info: Struct | null }) {
  const others = entry.branches.filter((name) => name !== MAIN_BRANCH).sort();
  return (
    <tr onDblClick={() => go({ database: entry.database, branch: MAIN_BRANCH, page: "query", fresh: true })}>
      <th scope="row">
        <a href={hrefOf(entry.database, MAIN_BRANCH)}>{entry.database}</a>
      </th>
      <td class="numeric">{info === null ? "" : Number(info.datoms).toLocaleString("en")}</td>
      <td>
        <div class="chips">
          {[MAIN_BRANCH, ...others].slice(0, BRANCHES_SHOWN).map((name) => (
            <a class="head" href={hrefOf(entry.database, name)}>
              {name}
            </a>
          ))}
          {others.length >= BRANCHES_SHOWN && (
            <a href={hrefOf(entry.database, MAIN_BRANCH, "graph")}>
              {count(others.length + 1 - BRANCHES_SHOWN, "more branch", "more branches")}
            </a>
          )}
        </div>
      </td>
      <td>{entry.keep_history ? "kept" : "none"}</td>
      <td>{entry.schema_flexibility === "write" ? "declared" : "flexible"}</td>
      <td class="since">{instantLabel(entry.created).slice(0, 16)}</td>
    </tr>
  );
}

function Nothing() {
  return (
    <Empty title="There is no database yet">
      <p>Make one on the command line; it appears here at once:</p>
      <pre class="text boxed">
        {`natalog db create people --schema read\nnatalog transact people '[{:name "Alice" :age 25}]'`}
      </pre>
    </Empty>
  );
}
