// The commits of all branches of a database, and what their transactions say of themselves.

import { ask } from "./api";
import type { Commit } from "./lanes";
import { MAIN_BRANCH } from "./route";
import { Keyword, Special, toText, type Struct, type Value } from "./values";

const BRANCHES_MAX = 40;
const AT_ONCE = 4;

export interface Graph {
  commits: Map<string, Commit>;
  heads: Map<string, string>;
  /** Branches that are not shown. */
  omitted: number;
  /** Some branch has older commits than these. */
  older: boolean;
  /** What transactions say of themselves, by commit. */
  notes: Map<string, string>;
}

const idOf = (value: Value): string => (value instanceof Special ? toText(value) : String(value));

async function inGroups<T, R>(items: T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const found: R[] = [];
  for (let at = 0; at < items.length; at += AT_ONCE) {
    found.push(...(await Promise.all(items.slice(at, at + AT_ONCE).map(work))));
  }
  return found;
}

/** The newest `limit` commits of each branch. */
export async function loadGraph(
  name: string,
  branches: string[],
  limit: number,
  stop: AbortSignal,
): Promise<Graph> {
  const shown = branches.slice(0, BRANCHES_MAX);
  const histories = await inGroups(shown, async (branch) => {
    const answer = await ask(name, branch, "history", { limit }, stop);
    return answer.result as Struct[];
  });
  const commits = new Map<string, Commit>();
  const heads = new Map<string, string>();
  for (const [at, nodes] of histories.entries()) {
    for (const node of nodes) {
      const id = idOf(node.commit_id!);
      if (commits.has(id)) continue;
      commits.set(id, {
        id,
        parents: (node.parents as Value[]).map(idOf),
        tx: Number(node.tx),
        instant: node.instant instanceof Date ? node.instant : null,
        heads: [],
        owner: null,
      });
    }
    const head = nodes[0];
    if (head !== undefined) {
      heads.set(shown[at]!, idOf(head.commit_id!));
      commits.get(idOf(head.commit_id!))!.heads.push(shown[at]!);
    }
  }
  for (const branch of shown) claim(branch, heads.get(branch), commits);
  return {
    commits,
    heads,
    omitted: branches.length - shown.length,
    older: histories.some((nodes) => nodes.length >= limit),
    notes: await notesOf(name, shown, commits, stop),
  };
}

/** The commits on the line of first parents of a branch belong to it, unless to one before. */
function claim(branch: string, head: string | undefined, commits: Map<string, Commit>): void {
  let id = head;
  while (id !== undefined) {
    const commit = commits.get(id);
    if (commit === undefined || commit.owner !== null) return;
    commit.owner = branch;
    id = commit.parents[0];
  }
}

const TELLING = ["message", "subject", "doc", "note", "reason", "why", "title", "summary"];

/** What people wrote into the metadata of transactions, the most telling attribute of each. */
async function notesOf(
  name: string,
  branches: string[],
  commits: Map<string, Commit>,
  stop: AbortSignal,
): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  await inGroups(branches, async (branch) => {
    const mine = new Map([...commits.values()].filter(({ owner }) => owner === branch).map((c) => [c.tx, c.id]));
    if (mine.size === 0) return;
    const query = "[:find ?tx ?a ?v :in $ [?tx ...] :where [?tx ?a ?v]]";
    const args = [{ "natalog/db": { branch } }, [...mine.keys()]];
    const answer = await ask(name, branch, "query", { query, args, timeout_ms: 5000 }, stop).catch(() => null);
    const best = new Map<number, number>();
    for (const [tx, attribute, value] of (answer?.result ?? []) as [number, Value, Value][]) {
      const said = attribute instanceof Keyword ? attribute.text : "";
      if (said === "db/txInstant" || typeof value !== "string") continue;
      const at = TELLING.indexOf(said.split("/").pop()!);
      const weight = at < 0 ? TELLING.length : at;
      if (weight >= (best.get(tx) ?? Infinity)) continue;
      best.set(tx, weight);
      found.set(mine.get(tx)!, value);
    }
  });
  return found;
}

export function orderedBranches(branches: string[]): string[] {
  return [...branches].sort((left, right) =>
    left === MAIN_BRANCH ? -1 : right === MAIN_BRANCH ? 1 : left < right ? -1 : 1,
  );
}
