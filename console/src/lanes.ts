// The commit graph as rows and lanes: children above their parents, each line of descent in a lane.

export interface Commit {
  id: string;
  parents: string[];
  tx: number;
  instant: Date | null;
  /** Branches whose head it is. */
  heads: string[];
  /** A branch on whose line of first parents it is, null for the past of merged branches that are gone. */
  owner: string | null;
}

export interface Edge {
  fromRow: number;
  fromLane: number;
  /** Where it runs between the two. */
  lane: number;
  /** The row of the parent; the number of rows where the parent is not among them. */
  toRow: number;
  toLane: number;
  merge: boolean;
}

export interface Layout {
  rows: { commit: Commit; lane: number }[];
  edges: Edge[];
  lanes: number;
}

/** Children before parents, otherwise the newest first. */
function ordered(commits: Map<string, Commit>): Commit[] {
  const waiting = new Map<string, number>();
  for (const commit of commits.values()) {
    for (const parent of commit.parents) waiting.set(parent, (waiting.get(parent) ?? 0) + 1);
  }
  const age = (commit: Commit) => commit.instant?.getTime() ?? 0;
  const newest = (left: Commit, right: Commit) => age(left) - age(right) || left.tx - right.tx;
  const ready = [...commits.values()].filter(({ id }) => !waiting.has(id)).sort(newest);
  const found: Commit[] = [];
  while (ready.length > 0) {
    const commit = ready.pop()!;
    found.push(commit);
    for (const parent of commit.parents) {
      const left = waiting.get(parent)! - 1;
      waiting.set(parent, left);
      const next = commits.get(parent);
      if (left === 0 && next !== undefined) {
        const at = ready.findIndex((each) => newest(each, next) > 0);
        ready.splice(at < 0 ? ready.length : at, 0, next);
      }
    }
  }
  return found;
}

/** `first`: the commit whose line gets the leftmost lane. */
export function layout(commits: Map<string, Commit>, first: string | null): Layout {
  const order = ordered(commits);
  const rowOf = new Map(order.map((commit, row) => [commit.id, row]));
  // which commit each lane waits for; null: the lane is free
  const waiting: (string | null)[] = first === null ? [] : [first];
  const laneOf = new Map<string, number>();
  const pending: (Omit<Edge, "toRow" | "toLane"> & { parent: string })[] = [];
  const take = (id: string): number => {
    const free = waiting.indexOf(null);
    const lane = free < 0 ? waiting.length : free;
    waiting[lane] = id;
    return lane;
  };
  let lanes = 1;
  for (const [row, commit] of order.entries()) {
    const there = waiting.indexOf(commit.id);
    const lane = there < 0 ? take(commit.id) : there;
    laneOf.set(commit.id, lane);
    for (let each = 0; each < waiting.length; each++) {
      if (waiting[each] === commit.id) waiting[each] = null;
    }
    for (const [at, parent] of commit.parents.entries()) {
      let via: number;
      if (at === 0) {
        via = lane;
        waiting[lane] = parent;
      } else {
        const known = waiting.indexOf(parent);
        via = known < 0 ? take(parent) : known;
      }
      pending.push({ fromRow: row, fromLane: lane, lane: via, parent, merge: at > 0 });
    }
    lanes = Math.max(lanes, waiting.length);
  }
  const edges = pending.map(({ parent, ...edge }) => ({
    ...edge,
    toRow: rowOf.get(parent) ?? order.length,
    toLane: laneOf.get(parent) ?? edge.lane,
  }));
  return { rows: order.map((commit) => ({ commit, lane: laneOf.get(commit.id)! })), edges, lanes };
}
