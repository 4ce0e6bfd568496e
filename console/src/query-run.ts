// A query as a request, and its answer as rows.

import { ask, plainText } from "./api";
import type { QueryInfo } from "./query-info";
import { isStruct, pairsOf, toText, type Struct, type Value } from "./values";

export const ROWS_MAX = 10_000;
const TIMEOUT_MS = 30_000;

export interface Request {
  text: string;
  /** EDN texts of the inputs but the first database, in their order. */
  inputs: string[];
  view: Record<string, unknown>;
  /** Column and direction when the service should sort. */
  order: { column: number; descending: boolean } | null;
}

export interface Rows {
  kind: string;
  columns: string[];
  entities: boolean[];
  rows: Value[][];
  /** The answer itself, for the other forms. */
  result: Value;
  /** There are more rows than these. */
  cut: boolean;
  basis: number;
  elapsedMs: number;
  totalMs: number;
}

export interface PlanStep extends Struct {
  depth: number;
  clause: string;
  estimated: Value;
  bound: number;
  rows: number;
}

export interface Plan {
  steps: PlanStep[];
  text: string;
  stats: Struct;
}

function argument(form: string, text: string, view: Record<string, unknown>): unknown {
  if (form === "$") return { "natalog/db": view };
  if (form.startsWith("$")) return { "#edn": `#natalog/db ${text.trim() || "{}"}` };
  return { "#edn": text };
}

function body(request: Request, info: QueryInfo | null): Record<string, unknown> {
  const made: Record<string, unknown> = {
    query: plainText(request.text),
    view: request.view,
    timeout_ms: TIMEOUT_MS,
  };
  const inputs = info?.inputs ?? [];
  if (inputs.some(({ form }) => form !== "$")) {
    let at = 0;
    made.args = inputs.map(({ form }) =>
      argument(form, form === "$" ? "" : (request.inputs[at++] ?? ""), request.view),
    );
  }
  const many = info !== null && (info.kind === "relation" || info.kind === "collection");
  if (many && !info.limited) made.limit = ROWS_MAX + 1;
  if (many && !info.limited && request.order !== null && info.kind === "relation") {
    made.order_by = [request.order.column, request.order.descending ? ":desc" : ":asc"];
  }
  return made;
}

export async function runQuery(
  database: string,
  branch: string,
  request: Request,
  info: QueryInfo | null,
  stop: AbortSignal,
): Promise<Rows> {
  const began = performance.now();
  const answer = await ask(database, branch, "query", { ...body(request, info), stats: true }, stop);
  const totalMs = performance.now() - began;
  const kind = String(answer.kind);
  const stats = answer.stats as Struct;
  return {
    ...tabulated(kind, answer.result!, info),
    kind,
    basis: Number(answer.basis),
    elapsedMs: Number(stats.elapsed_ms),
    totalMs,
  };
}

function tabulated(
  kind: string,
  result: Value,
  info: QueryInfo | null,
): Pick<Rows, "columns" | "entities" | "rows" | "result" | "cut"> {
  const many = Array.isArray(result) && kind !== "tuple" && kind !== "scalar";
  const cut = many && info !== null && !info.limited && result.length > ROWS_MAX;
  const kept = cut ? (result as Value[]).slice(0, ROWS_MAX) : result;
  let rows: Value[][];
  let columns = info?.columns ?? [];
  if (kind === "maps") {
    const maps = (kept as Value[]).map((map) => pairsOf(map) ?? []);
    columns = maps[0]?.map(([key]) => toText(key)) ?? columns;
    rows = maps.map((pairs) => pairs.map(([, value]) => value));
  } else if (kind === "collection") rows = (kept as Value[]).map((value) => [value]);
  else if (kind === "scalar") rows = kept === null ? [] : [[kept]];
  else if (kind === "tuple") rows = kept === null ? [] : [kept as Value[]];
  else rows = kept as Value[][];
  const width = rows[0]?.length ?? columns.length;
  const named = Array.from({ length: width }, (_, at) => columns[at] ?? String(at + 1));
  return { columns: named, entities: info?.entities ?? [], rows, result: kept, cut };
}

export async function explainQuery(
  database: string,
  branch: string,
  request: Request,
  info: QueryInfo | null,
  stop: AbortSignal,
): Promise<Plan> {
  const answer = await ask(database, branch, "query", { ...body(request, info), explain: true }, stop);
  const plan = answer.result;
  if (plan === undefined || !isStruct(plan)) throw new TypeError("the service answered no plan");
  return {
    steps: plan.steps as PlanStep[],
    text: String(plan.text),
    stats: plan.stats as Struct,
  };
}
