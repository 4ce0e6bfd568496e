// Values of the database in the browser, the JSON without loss that carries them, and their EDN.

export class Keyword {
  constructor(readonly text: string) {}
  toString(): string {
    return `:${this.text}`;
  }
}

export class Sym {
  constructor(readonly text: string) {}
}

export class EdnMap {
  constructor(readonly pairs: [Value, Value][]) {}
  get(key: string): Value | undefined {
    return this.pairs.find(([k]) => k instanceof Keyword && k.text === key)?.[1];
  }
}

export class EdnSet {
  constructor(readonly items: Value[]) {}
}

export class EdnList {
  constructor(readonly items: Value[]) {}
}

/** Every other kind: its name and the text that EDN shows. */
export class Special {
  constructor(
    readonly kind: string,
    readonly text: string,
  ) {}
}

export class Tagged {
  constructor(
    readonly tag: string,
    readonly value: Value,
  ) {}
}

export interface Struct {
  [name: string]: Value;
}

export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | Date
  | Keyword
  | Sym
  | EdnMap
  | EdnSet
  | EdnList
  | Special
  | Tagged
  | Value[]
  | Struct;

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const SPECIAL_DOUBLES: Record<string, string> = {
  NaN: "##NaN",
  Infinity: "##Inf",
  "-Infinity": "##-Inf",
};

const doubleText = (text: string) => SPECIAL_DOUBLES[text] ?? text;

const readers: Record<string, (inner: any) => Value> = {
  "#kw": (text) => new Keyword(text),
  "#sym": (text) => new Sym(text),
  "#int": (text) => BigInt(text),
  "#double": (text) => new Special("double", doubleText(text)),
  "#float": (text) => new Special("float", `#natalog/float ${doubleText(text)}`),
  "#int32": (number) => new Special("int32", `#natalog/int ${number}`),
  "#dec": (text) => new Special("decimal", `${text}M`),
  "#ratio": (text) => new Special("ratio", text),
  "#uuid": (text) => new Special("uuid", `#uuid "${text}"`),
  "#bytes": (text) => new Special("bytes", `#natalog/bytes "${text}"`),
  "#regex": (text) => new Special("regex", `#natalog/regex ${quoted(text)}`),
  "#doubles": (list) => new Special("doubles", `[${list.map(doubleText).join(" ")}]`),
  "#floats": (list) => new Special("floats", `[${list.map(doubleText).join(" ")}]`),
  "#inst": (text) => new Date(text),
  "#set": (list) => new EdnSet(list.map(decode)),
  "#list": (list) => new EdnList(list.map(decode)),
  "#map": (pairs) => new EdnMap(pairs.map(([k, v]: [Json, Json]) => [decode(k), decode(v)])),
  "#tag": ([tag, value]) => new Tagged(tag, decode(value)),
};

/** The value of what the service's JSON without loss says. */
export function decode(json: Json): Value {
  if (json === null || typeof json !== "object") return json;
  if (Array.isArray(json)) return json.map(decode);
  const keys = Object.keys(json);
  const reader = keys.length === 1 ? readers[keys[0]!] : undefined;
  if (reader !== undefined) return reader(json[keys[0]!]);
  const made: Struct = {};
  for (const key of keys) made[key] = decode(json[key]!);
  return made;
}

const ESCAPES: Record<string, string> = {
  '"': '\\"',
  "\\": "\\\\",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
};

export function quoted(text: string): string {
  return `"${text.replace(/["\\\n\r\t]/g, (found) => ESCAPES[found]!)}"`;
}

export function isStruct(value: Value): value is Struct {
  return value !== null && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype;
}

/** The pairs of a map of either kind, null for anything else. */
export function pairsOf(value: Value): [Value, Value][] | null {
  if (value instanceof EdnMap) return value.pairs;
  if (isStruct(value)) return Object.entries(value);
  return null;
}

export function instantText(instant: Date): string {
  const text = instant.toISOString();
  return text.endsWith(".000Z") ? `${text.slice(0, -5)}Z` : text;
}

function scalarEdn(value: Value): string | null {
  if (value === null) return "nil";
  switch (typeof value) {
    case "boolean":
    case "number":
      return String(value);
    case "bigint":
      return String(value);
    case "string":
      return quoted(value);
  }
  if (value instanceof Keyword) return `:${value.text}`;
  if (value instanceof Sym) return value.text;
  if (value instanceof Date) return `#inst "${instantText(value)}"`;
  if (value instanceof Special) return value.text;
  return null;
}

const LINE = 76;

/** EDN text; collections that do not fit a line are broken over several. */
export function toEdn(value: Value, indent = 0, width = LINE): string {
  const scalar = scalarEdn(value);
  if (scalar !== null) return scalar;
  if (value instanceof Tagged) return `#${value.tag} ${toEdn(value.value, indent, width)}`;
  const pairs = pairsOf(value);
  if (pairs !== null) {
    const shown = pairs.map(([k, v]) => {
      const key = toEdn(k, indent + 1, width);
      return `${key} ${toEdn(v, indent + 2 + key.length, width)}`;
    });
    return wrapped("{", shown, "}", ", ", indent, width);
  }
  const [open, items, close] =
    value instanceof EdnSet
      ? (["#{", value.items, "}"] as const)
      : value instanceof EdnList
        ? (["(", value.items, ")"] as const)
        : (["[", value as Value[], "]"] as const);
  const shown = items.map((item) => toEdn(item, indent + open.length, width));
  return wrapped(open, shown, close, " ", indent, width);
}

function wrapped(
  open: string,
  items: string[],
  close: string,
  gap: string,
  indent: number,
  width: number,
): string {
  const line = items.reduce((sum, item) => sum + item.length + gap.length, 2);
  if (indent + line <= width && !items.some((item) => item.includes("\n"))) {
    return open + items.join(gap) + close;
  }
  return open + items.join(`\n${" ".repeat(indent + open.length)}`) + close;
}

/** EDN on one line, however long. */
export function toLine(value: Value): string {
  return toEdn(value, 0, Infinity);
}

/** What people read: strings without quotation marks, everything else as EDN on one line. */
export function toText(value: Value): string {
  if (typeof value === "string") return value;
  if (value instanceof Date) return instantText(value);
  if (value instanceof Special && value.kind === "uuid") return value.text.slice(7, -1);
  return toLine(value);
}

/** Plain JSON for people: keywords as ":a/b", everything else that JSON lacks as text. */
export function toJson(value: Value): unknown {
  if (typeof value === "bigint") return String(value);
  if (value === null || typeof value !== "object") return value;
  if (value instanceof Keyword) return `:${value.text}`;
  if (value instanceof Date) return instantText(value);
  if (value instanceof Special) {
    if (value.kind === "double") {
      const number = Number(value.text);
      return Number.isFinite(number) ? number : value.text;
    }
    return value.kind === "uuid" ? value.text.slice(7, -1) : value.text;
  }
  if (value instanceof Sym) return value.text;
  if (value instanceof Tagged) return { tag: value.tag, value: toJson(value.value) };
  if (value instanceof EdnSet || value instanceof EdnList) return value.items.map(toJson);
  if (Array.isArray(value)) return value.map(toJson);
  return Object.fromEntries(pairsOf(value)!.map(([k, v]) => [toText(k), toJson(v)]));
}

function rank(value: Value): number {
  if (value === null) return 9;
  if (typeof value === "boolean") return 0;
  if (isNumber(value)) return 1;
  if (value instanceof Date) return 2;
  if (value instanceof Keyword) return 3;
  if (typeof value === "string") return 4;
  return 5;
}

export function isNumber(value: Value): boolean {
  return (
    typeof value === "number" ||
    typeof value === "bigint" ||
    (value instanceof Special && ["double", "float", "decimal", "int32", "ratio"].includes(value.kind))
  );
}

function numberOf(value: Value): number | bigint {
  if (typeof value === "number" || typeof value === "bigint") return value;
  const text = (value as Special).text.replace(/^#natalog\/\w+ /, "").replace(/M$/, "");
  const [over, under] = text.split("/");
  if (under !== undefined) return Number(over) / Number(under);
  return text === "##Inf" ? Infinity : text === "##-Inf" ? -Infinity : Number(text);
}

/** An order of all values, nil last: for sorting a table. */
export function compare(left: Value, right: Value): number {
  const difference = rank(left) - rank(right);
  if (difference !== 0) return difference;
  if (left === null) return 0;
  if (isNumber(left)) {
    const [a, b] = [numberOf(left), numberOf(right)];
    return a < b ? -1 : a > b ? 1 : 0;
  }
  if (left instanceof Date) return left.getTime() - (right as Date).getTime();
  const [a, b] = [toText(left), toText(right)];
  return a < b ? -1 : a > b ? 1 : 0;
}

export function same(left: Value, right: Value): boolean {
  return toLine(left) === toLine(right);
}
