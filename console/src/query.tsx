// The query page: editor and inputs on one side, the answer on the other.

import { useEffect, useMemo, useState } from "preact/hooks";
import { ServiceError } from "./api";
import { Editor, type Mark } from "./editor";
import { useAsk } from "./hooks";
import { PlanView } from "./plan";
import { queryInfo } from "./query-info";
import { explainQuery, runQuery, type Plan, type Request, type Rows } from "./query-run";
import { asCsv, asEdn, asJson, ResultTable, ResultText, SingleValue, type Sorting } from "./results";
import { go, route } from "./route";
import { Busy, CopyButton, count, Empty, ErrorNote, milliseconds } from "./shown";
import { Split } from "./split";
import { asOf, branch, currentView, database, news, schema, shortTx, withHistory } from "./state";
import { load, save } from "./stored";
import { RUN_KEY } from "./keys";
import { Starters, startersFor } from "./starters";

type Tab = "table" | "edn" | "json" | "plan";
const TABS: [Tab, string][] = [
  ["table", "Table"],
  ["edn", "EDN"],
  ["json", "JSON"],
  ["plan", "Plan"],
];
const RECENT_MAX = 30;

export interface Past {
  text: string;
  inputs: string[];
}

function inputsOf(params: URLSearchParams): string[] {
  try {
    const found: unknown = JSON.parse(params.get("in") ?? "[]");
    return Array.isArray(found) ? found.map(String) : [];
  } catch {
    return [];
  }
}

function sortingOf(params: URLSearchParams): Sorting | null {
  const number = Number(params.get("s") ?? 0);
  return number === 0 ? null : { column: Math.abs(number) - 1, descending: number < 0 };
}

function markOf(error: unknown): Mark | null {
  if (!(error instanceof ServiceError)) return null;
  const data = error.data as Record<string, unknown>;
  if (error.code !== "EdnSyntax" || typeof data.line !== "number") return null;
  return { line: data.line, column: Number(data.column ?? 1), message: error.message };
}

export function QueryPage() {
  const name = database.value!;
  const params = route.value.params;
  const asked = params.get("q");
  const [text, setText] = useState(() => asked ?? load(`draft:${name}`, ""));
  const [revision, setRevision] = useState(0);
  const [inputs, setInputs] = useState<string[]>(() => inputsOf(params));
  const [live, setLive] = useState(false);
  const [runs, setRuns] = useState(0);
  const [recent, setRecent] = useState<Past[]>(() => load(`recent:${name}`, []));
  const tab = (params.get("tab") ?? "table") as Tab;
  const sorting = sortingOf(params);

  const replace = (to: string) => {
    setText(to);
    setRevision((number) => number + 1);
  };

  // a link, or the browser's way back, may bring another query
  useEffect(() => {
    if (asked !== null) {
      replace(asked);
      setInputs(inputsOf(params));
    }
  }, [asked, params.get("in")]);

  // somebody who is here for the first time begins with a query that works
  useEffect(() => {
    if (text === "" && asked === null && schema.value.attributes.length > 0) {
      replace(startersFor(schema.value)[0]!.text);
    }
  }, [schema.value]);

  const info = useMemo(() => queryInfo(text, schema.value), [text, schema.value]);
  const askedInfo = useMemo(
    () => (asked === null ? null : queryInfo(asked, schema.value)),
    [asked, schema.value],
  );
  const extra = (info?.inputs ?? []).filter(({ form }) => form !== "$");

  const follow = live && asOf.value === null ? news.value : 0;
  const key = [name, branch.value, asked, params.get("in"), asOf.value, withHistory.value, runs, follow];
  const request = (order: Request["order"]): Request => ({
    text: asked ?? "",
    inputs: inputsOf(params),
    view: currentView(),
    order,
  });
  const [cut, setCut] = useState(false);
  const rows = useAsk<Rows>(asked === null ? null : [...key, cut ? params.get("s") : ""], (stop) =>
    runQuery(name, branch.value, request(cut ? sorting : null), askedInfo, stop),
  );
  useEffect(() => setCut(rows.value?.cut ?? false), [rows.value]);
  const plan = useAsk<Plan>(asked === null || tab !== "plan" ? null : key, (stop) =>
    explainQuery(name, branch.value, request(null), askedInfo, stop),
  );

  const run = () => {
    if (text.trim() === "") return;
    const values = extra.map((_, at) => inputs[at] ?? "");
    const past = [{ text, inputs: values }, ...recent.filter((each) => each.text !== text)];
    setRecent(past.slice(0, RECENT_MAX));
    save(`recent:${name}`, past.slice(0, RECENT_MAX));
    setRuns((number) => number + 1);
    go({
      params: {
        q: text,
        in: values.some((value) => value !== "") ? JSON.stringify(values) : null,
        s: text === asked ? params.get("s") : null,
      },
    });
  };
  const change = (to: string) => {
    setText(to);
    save(`draft:${name}`, to);
  };
  const choose = (past: Past) => {
    setInputs(past.inputs);
    change(past.text);
    replace(past.text);
  };
  const error = tab === "plan" ? (plan.error ?? rows.error) : rows.error;
  const marked = useMemo(() => (text === asked ? markOf(error) : null), [error, text === asked]);

  const left = (
    <>
      <div class="editor-box">
        <Editor
          value={text}
          revision={revision}
          label="Query"
          kind="query"
          placeholder="[:find ?e :where [?e :attribute ?value]]"
          focus
          mark={marked}
          onChange={change}
          onRun={run}
        />
      </div>
      {extra.length > 0 && (
        <div class="inputs">
          {extra.map(({ form, kind }, at) => (
            <label key={`${at}${form}`}>
              <code>{form}</code>
              <input
                type="text"
                spellcheck={false}
                autocomplete="off"
                value={inputs[at] ?? ""}
                placeholder={
                  kind === "database" ? "{:as-of …} or {:branch other}" : kind === "rules" ? "[[(rule ?x) …]]" : "EDN"
                }
                onInput={(event) => {
                  const next = extra.map((_, each) => inputs[each] ?? "");
                  next[at] = event.currentTarget.value;
                  setInputs(next);
                }}
                onKeyDown={(event) => {
                  if (event.key === "Enter") run();
                }}
              />
            </label>
          ))}
        </div>
      )}
      <div class="actions">
        <button type="button" class="primary" onClick={run} title={`Run the query (${RUN_KEY})`}>
          Run <kbd>{RUN_KEY}</kbd>
        </button>
        <label class="check" title="Run again after every transaction">
          <input type="checkbox" checked={live} onChange={(event) => setLive(event.currentTarget.checked)} />
          Follow changes
        </label>
      </div>
      <Starters recent={recent} onChoose={choose} />
    </>
  );

  const right = (
    <>
      <Busy on={rows.busy || plan.busy} />
      <div class="bar">
        <div class="tabs" role="tablist" aria-label="forms of the answer">
          {TABS.map(([each, title]) => (
            <button
              type="button"
              role="tab"
              id={`tab-${each}`}
              aria-selected={tab === each}
              aria-controls="answer"
              onClick={() => go({ params: { tab: each === "table" ? null : each } }, true)}
            >
              {title}
            </button>
          ))}
        </div>
        <Facts rows={rows.value} />
        {rows.value !== null && tab !== "plan" && (
          <CopyButton
            text={() => (tab === "edn" ? asEdn : tab === "json" ? asJson : asCsv)(rows.value!)}
            label={tab === "table" ? "Copy CSV" : "Copy"}
          />
        )}
      </div>
      <div class="answer" id="answer" role="tabpanel" aria-labelledby={`tab-${tab}`}>
        {error !== null ? (
          <ErrorNote error={error} />
        ) : asked === null ? (
          <Empty title="No query has run">
            <p>
              Write one, or choose one of those on the left. <kbd>{RUN_KEY}</kbd> runs it.
            </p>
          </Empty>
        ) : tab === "plan" ? (
          plan.value !== null && <PlanView plan={plan.value} />
        ) : (
          rows.value !== null && (
            <Answer
              rows={rows.value}
              tab={tab}
              sorting={sorting}
              onSort={(to) =>
                go({ params: { s: to === null ? null : (to.column + 1) * (to.descending ? -1 : 1) } }, true)
              }
            />
          )
        )}
      </div>
    </>
  );

  return (
    <Split
      name="query"
      initial={40}
      left={left}
      right={right}
      leftLabel="Query"
      rightLabel="Answer"
    />
  );
}

function Facts({ rows }: { rows: Rows | null }) {
  if (rows === null) return <span class="facts" />;
  return (
    <span class="facts" role="status">
      <b>{rows.cut ? `${rows.rows.length.toLocaleString("en")}+ rows` : count(rows.rows.length, "row")}</b>
      <span title={`${milliseconds(rows.totalMs)} with the way to the service and back`}>
        {milliseconds(rows.elapsedMs)}
      </span>
      <span title={`the answer contains transaction ${rows.basis}`}>basis tx {shortTx(rows.basis)}</span>
    </span>
  );
}

interface AnswerProperties {
  rows: Rows;
  tab: Tab;
  sorting: Sorting | null;
  onSort: (sorting: Sorting | null) => void;
}

function Answer({ rows, tab, sorting, onSort }: AnswerProperties) {
  if (tab === "edn") return <ResultText text={asEdn(rows)} label="answer as EDN" code />;
  if (tab === "json") return <ResultText text={asJson(rows)} label="answer as JSON" />;
  if (rows.rows.length === 0) {
    return (
      <Empty title="Nothing found">
        <p>
          {asOf.value !== null
            ? "At this point in time no facts match the query."
            : "No facts match the query."}
        </p>
      </Empty>
    );
  }
  if (rows.kind === "scalar") return <SingleValue found={rows} />;
  return <ResultTable found={rows} sorting={sorting} onSort={onSort} />;
}
