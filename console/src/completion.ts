// Completion in the editors: attributes of the schema, variables of the text, functions of the service.

import type { Completion, CompletionContext, CompletionResult } from "@codemirror/autocomplete";
import { about } from "./api";
import type { Attribute, Schema } from "./schema";
import { schema } from "./state";

const SECTIONS: [string, string][] = [
  [":find", "what to answer"],
  [":in", "inputs: $ ?x [?x ...] %"],
  [":where", "clauses that hold"],
  [":with", "variables that keep rows apart"],
  [":keys", "rows as maps with keywords"],
  [":strs", "rows as maps with strings"],
  [":syms", "rows as maps with symbols"],
];
const MAP_SECTIONS: [string, string][] = [
  [":limit", "rows at most"],
  [":offset", "rows to skip"],
  [":order-by", "[?x :asc ?y :desc]"],
];
const CLAUSES: [string, string][] = [
  ["not", "(not clause …)"],
  ["not-join", "(not-join [?x] clause …)"],
  ["or", "(or clause …)"],
  ["or-join", "(or-join [?x] clause …)"],
  ["and", "(and clause …), within or"],
  ["pull", "(pull ?e [:attr …])"],
];
const OPERATIONS: [string, string][] = [
  [":db/add", "[:db/add e a v]"],
  [":db/retract", "[:db/retract e a v]"],
  [":db/retractEntity", "[:db/retractEntity e]"],
  [":db/cas", "[:db/cas e a old new]"],
  [":db/id", "the entity of a map"],
];
const DECLARATION: string[] = [
  ":db/ident",
  ":db/valueType",
  ":db/cardinality",
  ":db/unique",
  ":db/index",
  ":db/isComponent",
  ":db/doc",
  ":db.cardinality/one",
  ":db.cardinality/many",
  ":db.unique/identity",
  ":db.unique/value",
  ...["bigdec", "bigint", "boolean", "bytes", "double", "float", "instant", "keyword", "long"].map(
    (name) => `:db.type/${name}`,
  ),
  ...["number", "ref", "string", "symbol", "tuple", "uuid"].map((name) => `:db.type/${name}`),
];

const WORD = /[:?$%A-Za-z0-9_.*+!<>=/&-]+$/;

export type Kind = "query" | "transaction" | "pattern";

function described(list: [string, string][], type: string, boost: number): Completion[] {
  return list.map(([label, detail]) => ({ label, detail, type, boost }));
}

export function detailOf(attribute: Attribute): string {
  return [
    attribute.type ?? "any",
    attribute.many ? "many" : "",
    attribute.unique === null ? "" : `unique ${attribute.unique}`,
  ]
    .filter(Boolean)
    .join(" · ");
}

function reverse(ident: string): string {
  const at = ident.lastIndexOf("/") + 1;
  return `${ident.slice(0, at)}_${ident.slice(at)}`;
}

function attributes(read: Schema, backwards: boolean): Completion[] {
  const own = read.attributes.map((attribute) => ({
    label: `:${attribute.ident}`,
    type: attribute.isRef ? "ref" : "attribute",
    detail: detailOf(attribute),
    ...(attribute.doc === null ? {} : { info: attribute.doc }),
    boost: 3,
  }));
  const others = read.idents.map((ident) => ({ label: `:${ident.ident}`, type: "ident", detail: "ident" }));
  const back = !backwards
    ? []
    : read.refs.map((attribute) => ({
        label: `:${reverse(attribute.ident)}`,
        type: "ref",
        detail: "back along the reference",
        boost: 1,
      }));
  return [...own, ...others, ...back];
}

function variables(text: string, word: string): Completion[] {
  const counts = new Map<string, number>();
  for (const [name] of text.matchAll(/[?$][A-Za-z][\w*+!-]*/g)) {
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  // the word that is being written is no name to offer
  if (counts.get(word) === 1) counts.delete(word);
  return [...counts].map(([label, uses]) => ({ label, type: "variable", boost: Math.min(uses, 9) }));
}

function calls(inFind: boolean): Completion[] {
  const aggregates = (about.value?.aggregates ?? []).map((label) => ({ label, type: "aggregate" }));
  if (inFind) return [...aggregates, ...described(CLAUSES.slice(-1), "clause", 2)];
  const functions = (about.value?.functions ?? []).map((label) => ({ label, type: "function" }));
  return [...functions, ...described(CLAUSES.slice(0, -1), "clause", 2)];
}

function options(kind: Kind, before: string, word: string, all: string): Completion[] {
  const read = schema.value;
  const section = /:(find|in|where|with)\b(?![\s\S]*:(?:find|in|where|with)\b)/.exec(before)?.[1];
  if (word.startsWith(":")) {
    if (kind === "transaction") {
      const declared = DECLARATION.map((label) => ({ label, type: "ident" }));
      return [...attributes(read, true), ...described(OPERATIONS, "section", 1), ...declared];
    }
    if (kind === "pattern") return attributes(read, true);
    const isMap = /^\s*\{/.test(all);
    return [
      ...attributes(read, /_/.test(word) || /pull/.test(before)),
      ...described(isMap ? [...SECTIONS, ...MAP_SECTIONS] : SECTIONS, "section", section === "where" ? -1 : 5),
      ...["db/ident", "db/txInstant", "db/doc"].map((name) => ({ label: `:${name}`, type: "attribute" })),
    ];
  }
  if (kind !== "query") return [];
  if (word.startsWith("?") || word.startsWith("$")) return variables(all, word);
  if (/\(\s*$/.test(before)) return calls(section === "find");
  return [...variables(all, word), ...attributes(read, false)];
}

/** What CodeMirror asks for completions. */
export function completions(kind: Kind) {
  return (context: CompletionContext): CompletionResult | null => {
    const word = context.matchBefore(WORD);
    const afterParenthesis = context.matchBefore(/\(/) !== null;
    if (word === null && !context.explicit && !afterParenthesis) return null;
    const from = word?.from ?? context.pos;
    const text = context.state.doc;
    const found = options(kind, text.sliceString(0, from), word?.text ?? "", text.toString());
    return found.length === 0 ? null : { from, options: found, validFor: /^[:?$%\w.*+!<>=/&-]*$/ };
  };
}
