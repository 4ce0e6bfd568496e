// What the page needs to know of a query: names of columns, inputs, which columns hold entities.

import { tryEdn } from "./edn";
import type { Schema } from "./schema";
import { EdnList, EdnMap, Keyword, Sym, toLine, type Value } from "./values";

export type Kind = "relation" | "collection" | "tuple" | "scalar";

export interface Input {
  form: string;
  kind: "database" | "rules" | "value";
}

export interface QueryInfo {
  kind: Kind;
  columns: string[];
  /** Columns whose values are ids of entities. */
  entities: boolean[];
  inputs: Input[];
  /** The query itself says how many rows it wants. */
  limited: boolean;
  returnsMaps: boolean;
}

const SECTIONS = new Set(["find", "in", "where", "with", "keys", "strs", "syms"]);

function sections(query: Value): Map<string, Value[]> | null {
  const found = new Map<string, Value[]>();
  if (query instanceof EdnMap) {
    for (const [key, value] of query.pairs) {
      if (!(key instanceof Keyword)) return null;
      found.set(key.text, Array.isArray(value) ? value : [value]);
    }
    return found.has("find") ? found : null;
  }
  if (!Array.isArray(query)) return null;
  let section: Value[] | null = null;
  for (const item of query) {
    if (item instanceof Keyword && SECTIONS.has(item.text)) {
      section = [];
      found.set(item.text, section);
    } else if (section === null) return null;
    else section.push(item);
  }
  return found.has("find") ? found : null;
}

const isSymbol = (value: Value | undefined, text: string): boolean =>
  value instanceof Sym && value.text === text;

const variable = (value: Value | undefined): string | null =>
  value instanceof Sym && value.text.startsWith("?") ? value.text : null;

function shape(find: Value[]): { kind: Kind; elements: Value[] } {
  const [first, second] = find;
  if (find.length === 1 && Array.isArray(first)) {
    if (first.length === 2 && isSymbol(first[1], "...")) {
      return { kind: "collection", elements: [first[0]!] };
    }
    return { kind: "tuple", elements: first };
  }
  if (find.length === 2 && isSymbol(second, ".")) return { kind: "scalar", elements: [first!] };
  return { kind: "relation", elements: find };
}

function label(element: Value): string {
  if (element instanceof EdnList && isSymbol(element.items[0], "pull")) {
    return `pull ${toLine(element.items.find((item) => variable(item) !== null) ?? null)}`;
  }
  return toLine(element);
}

/** Variables of clauses that stand for entities: in the first place, of references, of transactions. */
function entityVariables(clauses: Value[], schema: Schema, found: Set<string>): void {
  for (const clause of clauses) {
    if (clause instanceof EdnList) entityVariables(clause.items, schema, found);
    if (!Array.isArray(clause) || clause[0] instanceof EdnList) continue;
    const places = clause[0] instanceof Sym && clause[0].text.startsWith("$") ? clause.slice(1) : clause;
    const [e, a, v, tx] = places;
    const add = (value: Value | undefined) => {
      const name = variable(value);
      if (name !== null) found.add(name);
    };
    if (places.length >= 2) add(e);
    if (a instanceof Keyword && schema.attribute(a.text)?.isRef) add(v);
    add(tx);
  }
}

/** Null for a query that is not written to its end. */
export function queryInfo(text: string, schema: Schema): QueryInfo | null {
  const query = tryEdn(text);
  const parts = query === undefined ? null : sections(query);
  if (parts === null) return null;
  const { kind, elements } = shape(parts.get("find")!);
  const names = parts.get("keys") ?? parts.get("strs") ?? parts.get("syms");
  const entities = new Set<string>();
  entityVariables(parts.get("where") ?? [], schema, entities);
  const inputs = (parts.get("in") ?? [new Sym("$")]).map((form): Input => {
    const text = toLine(form);
    if (text.startsWith("$")) return { form: text, kind: "database" };
    return { form: text, kind: text === "%" ? "rules" : "value" };
  });
  return {
    kind,
    columns: elements.map((element, at) => (names?.[at] ? toLine(names[at]!) : label(element))),
    entities: elements.map((element) => entities.has(variable(element) ?? "")),
    inputs,
    limited: parts.has("limit") || parts.has("offset"),
    returnsMaps: names !== undefined,
  };
}
