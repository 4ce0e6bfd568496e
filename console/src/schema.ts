// The schema of a database value, as the service reads it out.

import { EdnMap, Keyword, pairsOf, toLine, toText, type Value } from "./values";

export interface Attribute {
  ident: string;
  id: number;
  type: string | null;
  many: boolean;
  unique: string | null;
  indexed: boolean;
  component: boolean;
  noHistory: boolean;
  isRef: boolean;
  doc: string | null;
  /** Other properties, as EDN. */
  rest: [string, string][];
}

const KNOWN = new Set([
  "db/id",
  "db/ident",
  "db/valueType",
  "db/cardinality",
  "db/unique",
  "db/index",
  "db/isComponent",
  "db/noHistory",
  "db/doc",
]);

function name(value: Value | undefined): string | null {
  return value instanceof Keyword ? value.text.split("/").pop()! : null;
}

function attributeOf(ident: string, properties: EdnMap): Attribute {
  const type = name(properties.get("db/valueType"));
  return {
    ident,
    id: Number(properties.get("db/id")),
    type,
    many: name(properties.get("db/cardinality")) === "many",
    unique: name(properties.get("db/unique")),
    indexed: properties.get("db/index") === true,
    component: properties.get("db/isComponent") === true,
    noHistory: properties.get("db/noHistory") === true,
    isRef: type === "ref",
    doc: typeof properties.get("db/doc") === "string" ? (properties.get("db/doc") as string) : null,
    rest: properties.pairs
      .filter(([key]) => !KNOWN.has(toText(key).slice(1)))
      .map(([key, value]) => [toLine(key), toLine(value)]),
  };
}

const LABELS = ["name", "title", "label", "email", "path", "sha", "id", "ident"];

export class Schema {
  readonly attributes: Attribute[] = [];
  /** Idents that name no attribute. */
  readonly idents: Attribute[] = [];
  private readonly byIdent = new Map<string, Attribute>();

  /** `used`: attributes that have facts, declared or not. */
  constructor(read: Value = null, used: string[] = []) {
    for (const [key, properties] of pairsOf(read) ?? []) {
      if (!(key instanceof Keyword) || !(properties instanceof EdnMap)) continue;
      const found = attributeOf(key.text, properties);
      const declared = properties.get("db/valueType") ?? properties.get("db/cardinality");
      (declared === undefined ? this.idents : this.attributes).push(found);
      this.byIdent.set(key.text, found);
    }
    for (const ident of used) {
      if (ident.startsWith("db/") || this.byIdent.has(ident)) continue;
      const found = attributeOf(ident, new EdnMap([]));
      this.attributes.push(found);
      this.byIdent.set(ident, found);
    }
  }

  attribute(ident: string): Attribute | undefined {
    return this.byIdent.get(ident);
  }

  get refs(): Attribute[] {
    return this.attributes.filter((attribute) => attribute.isRef);
  }

  /** Attributes whose values people take for the name of an entity, the best first. */
  get labels(): Attribute[] {
    const weight = (attribute: Attribute) => {
      const at = LABELS.indexOf(attribute.ident.split("/").pop()!);
      return (at < 0 ? LABELS.length : at) - (attribute.unique === "identity" ? 2.5 : 0);
    };
    return this.attributes
      .filter((attribute) => !attribute.many && ["string", "keyword", "symbol"].includes(attribute.type ?? "string"))
      .filter((attribute) => weight(attribute) < LABELS.length)
      .sort((left, right) => weight(left) - weight(right));
  }
}
