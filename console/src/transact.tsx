// Writing: a transaction is previewed, which stores nothing, and then committed.

import { useState } from "preact/hooks";
import { about, ask } from "./api";
import { Datoms } from "./datoms";
import { Editor } from "./editor";
import { COMMIT_KEY, RUN_KEY } from "./keys";
import { go } from "./route";
import { Busy, count, Empty, EntityLink, ErrorNote, instantLabel } from "./shown";
import { Split } from "./split";
import { asOf, branch, database, shortTx } from "./state";
import { load, save } from "./stored";
import { pairsOf, toText, type Struct, type Value } from "./values";

interface Outcome {
  report: Struct | null;
  error: unknown;
  committed: boolean;
}

/** `crypto.randomUUID` is not there on plain HTTP under a host name. */
function token(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function TransactPage() {
  const name = database.value!;
  const [text, setText] = useState(() => load(`transaction:${name}`, ""));
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  const [busy, setBusy] = useState(false);
  const past = asOf.value !== null;

  const send = async (endpoint: "with" | "transact") => {
    if (text.trim() === "" || busy) return;
    const committed = endpoint === "transact";
    setBusy(true);
    try {
      const report = await ask(name, branch.value, endpoint, {
        tx_data: { "#edn": text },
        // a repeat of the same request, should an answer be lost, must not apply twice
        ...(committed ? { id: token() } : {}),
      });
      setOutcome({ report, error: null, committed });
    } catch (error) {
      setOutcome({ report: null, error, committed });
    }
    setBusy(false);
  };
  const preview = () => void send("with");
  const commit = () => void send("transact");

  if (about.value?.write !== true) {
    return (
      <Empty title="This console only reads">
        <p>
          A service started with <code>natalog serve --console-write</code> lets it write.
        </p>
      </Empty>
    );
  }
  return (
    <Split
      name="transact"
      initial={45}
      leftLabel="Transaction"
      rightLabel="Outcome"
      left={
        <>
          {past && (
            <p class="note">
              A transaction adds to the head of the branch, whatever time is shown.{" "}
              <button type="button" class="link" onClick={() => go({ params: { t: null } })}>
                Show the present
              </button>
            </p>
          )}
          <div class="editor-box">
            <Editor
              value={text}
              revision={0}
              label="Transaction"
              kind="transaction"
              placeholder={'[{:name "Alice"}\n [:db/add 17 :age 26]]'}
              focus
              onChange={(to) => {
                setText(to);
                save(`transaction:${name}`, to);
              }}
              onRun={preview}
              onCommit={commit}
            />
          </div>
          <div class="actions">
            <button type="button" onClick={preview} disabled={busy}>
              Preview <kbd>{RUN_KEY}</kbd>
            </button>
            <button type="button" class="danger" onClick={commit} disabled={busy}>
              Commit to {branch.value} <kbd>{COMMIT_KEY}</kbd>
            </button>
          </div>
        </>
      }
      right={
        <>
          <Busy on={busy} />
          <div class="answer pad-all">
            {outcome === null ? (
              <Empty title="Nothing sent">
                <p>A preview shows what the transaction would do; only a commit stores it.</p>
              </Empty>
            ) : outcome.report === null ? (
              <ErrorNote error={outcome.error} />
            ) : (
              <Report report={outcome.report} committed={outcome.committed} />
            )}
          </div>
        </>
      }
    />
  );
}

function Report({ report, committed }: { report: Struct; committed: boolean }) {
  const rows = report.tx_data as Value[];
  const tempids = (pairsOf(report.tempids!) ?? []).filter(([key]) => toText(key) !== ":db/current-tx");
  return (
    <>
      <header class="entity-head" aria-live="polite">
        <h2 class="title">{committed ? `Committed as tx ${shortTx(Number(report.tx))}` : "Preview: nothing is stored"}</h2>
        <p class="faint">
          {count(rows.length, "datom")}
          {committed && report.instant instanceof Date && ` · ${instantLabel(report.instant)}`}
        </p>
      </header>
      {tempids.length > 0 && (
        <dl class="about">
          {tempids.map(([key, id]) => (
            <>
              <dt>{toText(key)}</dt>
              <dd>{committed ? <EntityLink id={Number(id)} /> : String(id)}</dd>
            </>
          ))}
        </dl>
      )}
      <Datoms rows={rows} />
    </>
  );
}
