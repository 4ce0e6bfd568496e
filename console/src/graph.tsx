// The commit graph of all branches as a picture; a commit shows what its transaction did.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { loadGraph, orderedBranches, type Graph } from "./graph-data";
import { useAsk } from "./hooks";
import { layout, type Commit, type Edge, type Layout } from "./lanes";
import { go, MAIN_BRANCH, route } from "./route";
import { Busy, CopyButton, count, Empty, ErrorNote, instantLabel } from "./shown";
import { Split } from "./split";
import { branch, database, entry, news, shortTx } from "./state";
import { TransactionFacts } from "./transaction";

const ROW = 30;
const LANE = 18;
const MARGIN = 16;
const FIRST = 120;
const COLOURS = 8;

const x = (lane: number) => MARGIN + lane * LANE;
const y = (row: number) => row * ROW + ROW / 2;

function pathOf(edge: Edge): string {
  const [x1, y1] = [x(edge.fromLane), y(edge.fromRow)];
  const [xv, x2, y2] = [x(edge.lane), x(edge.toLane), y(edge.toRow)];
  let path = `M${x1} ${y1}`;
  let at = y1;
  if (edge.lane !== edge.fromLane) {
    at = y1 + ROW;
    path += `C${x1} ${y1 + ROW * 0.6} ${xv} ${y1 + ROW * 0.4} ${xv} ${at}`;
  }
  if (edge.toLane === edge.lane) return `${path}V${y2}`;
  const turn = y2 - ROW;
  if (turn > at) path += `V${turn}`;
  return `${path}C${xv} ${y2 - ROW * 0.4} ${x2} ${y2 - ROW * 0.6} ${x2} ${y2}`;
}

export function GraphPage() {
  const name = database.value!;
  const branches = orderedBranches(entry.value?.branches ?? [MAIN_BRANCH]);
  const [limit, setLimit] = useState(FIRST);
  const { value, error, busy } = useAsk<Graph>([name, branches, limit, news.value], (stop) =>
    loadGraph(name, branches, limit, stop),
  );
  const drawn = useMemo(
    () => (value === null ? null : layout(value.commits, value.heads.get(MAIN_BRANCH) ?? null)),
    [value],
  );
  const chosen = value?.commits.get(route.value.argument ?? "") ?? null;
  return (
    <Split
      name="graph"
      initial={55}
      leftLabel="Commits"
      rightLabel="Commit"
      left={
        <>
          <Busy on={busy} />
          <ErrorNote error={error} />
          {drawn !== null && value !== null && (
            <Picture drawn={drawn} graph={value} chosen={chosen} onMore={() => setLimit(limit * 4)} />
          )}
        </>
      }
      right={
        chosen === null ? (
          <Empty title="No commit chosen">
            <p>Every transaction is a commit. Choose one to see what it did.</p>
          </Empty>
        ) : (
          <CommitDetail key={chosen.id} commit={chosen} graph={value!} />
        )
      }
    />
  );
}

interface PictureProperties {
  drawn: Layout;
  graph: Graph;
  chosen: Commit | null;
  onMore: () => void;
}

const choose = (commit: Commit | undefined, replace: boolean) => {
  if (commit !== undefined) go({ argument: commit.id }, replace);
};

function Picture({ drawn, graph, chosen, onMore }: PictureProperties) {
  const host = useRef<HTMLDivElement>(null);
  const at = drawn.rows.findIndex(({ commit }) => commit === chosen);
  useEffect(() => {
    host.current?.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: "nearest" });
  }, [at]);
  const key = (event: KeyboardEvent) => {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    const to = Math.max(0, Math.min(drawn.rows.length - 1, at + by));
    choose(drawn.rows[at < 0 ? 0 : to]?.commit, true);
  };
  const width = x(drawn.lanes - 1) + MARGIN;
  const height = drawn.rows.length * ROW + (graph.older ? ROW : 0);
  return (
    <div class="graph" ref={host}>
      <div
        class="graph-inner"
        tabIndex={0}
        role="listbox"
        aria-label="commits, newest first"
        aria-activedescendant={chosen === null ? undefined : `commit-${chosen.id}`}
        onKeyDown={key}
      >
        <svg width={width} height={height} aria-hidden="true">
          {drawn.edges.map((edge) => (
            <path
              class={`edge lane-${Math.max(edge.lane, edge.merge ? edge.toLane : edge.lane) % COLOURS}${
                edge.toRow >= drawn.rows.length ? " cut" : ""
              }`}
              d={pathOf(edge)}
            />
          ))}
          {drawn.rows.map(({ commit, lane }, row) => (
            <circle
              class={`dot lane-${lane % COLOURS}${commit.parents.length > 1 ? " merge" : ""}${
                commit === chosen ? " chosen" : ""
              }`}
              cx={x(lane)}
              cy={y(row)}
              r={commit === chosen ? 6 : commit.parents.length > 1 ? 5 : 4.5}
            />
          ))}
        </svg>
        <div class="commits" style={{ paddingLeft: `${width}px` }}>
          {drawn.rows.map(({ commit, lane }) => (
            <div
              key={commit.id}
              id={`commit-${commit.id}`}
              role="option"
              class="commit"
              aria-selected={commit === chosen}
              onClick={() => choose(commit, false)}
            >
              {commit.heads.map((head) => (
                <span class={`head lane-${lane % COLOURS}${head === branch.value ? " current" : ""}`}>{head}</span>
              ))}
              <span class="commit-tx">tx {shortTx(commit.tx)}</span>
              <span class="commit-note">{graph.notes.get(commit.id) ?? ""}</span>
              <time>{instantLabel(commit.instant).slice(0, 16)}</time>
              <code class="faint">{commit.id.slice(0, 8)}</code>
            </div>
          ))}
        </div>
      </div>
      <p class="faint pad">
        {count(drawn.rows.length, "commit")} of {count(graph.heads.size, "branch", "branches")}
        {graph.omitted > 0 && `; ${graph.omitted} more branches are not drawn`}
        {graph.older && (
          <button type="button" class="quiet" onClick={onMore}>
            Older commits
          </button>
        )}
      </p>
    </div>
  );
}

function CommitDetail({ commit, graph }: { commit: Commit; graph: Graph }) {
  const where = commit.owner === null ? { commit: commit.id } : { branch: commit.owner };
  const look = () =>
    go({
      page: "query",
      argument: null,
      branch: commit.owner ?? branch.value,
      params: { t: commit.heads.includes(commit.owner ?? "") ? null : commit.tx },
    });
  return (
    <div class="commit-detail">
      <header class="entity-head">
        <h2 class="title">
          {commit.parents.length > 1 ? "Merge" : "Commit"} tx {shortTx(commit.tx)}
        </h2>
        <p class="faint">
          <code>{commit.id}</code>
          <CopyButton text={() => commit.id} />
        </p>
      </header>
      <dl class="about">
        <dt>instant</dt>
        <dd>{instantLabel(commit.instant)}</dd>
        <dt>on</dt>
        <dd>{commit.owner ?? "no branch's own line"}</dd>
        <dt>{commit.parents.length > 1 ? "parents" : "parent"}</dt>
        <dd>
          {commit.parents.map((parent) =>
            graph.commits.has(parent) ? (
              <button type="button" class="link" onClick={() => go({ argument: parent })}>
                <code>{parent.slice(0, 8)}</code>
              </button>
            ) : (
              <code>{parent.slice(0, 8)} </code>
            ),
          )}
          {commit.parents.length === 0 && "none: here it begins"}
        </dd>
      </dl>
      {commit.owner !== null && entry.value?.keep_history !== false && (
        <p>
          <button type="button" onClick={look}>
            Query the database as of this commit
          </button>
        </p>
      )}
      <TransactionFacts tx={commit.tx} view={where} title="What it did" />
    </div>
  );
}
