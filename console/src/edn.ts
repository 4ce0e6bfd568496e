// A reader of EDN text, for what the page must know of a query before it is sent.  The service reads
// the text itself; what this reader cannot read is left to the service to refuse.

import { EdnList, EdnMap, EdnSet, Keyword, Special, Sym, Tagged, type Value } from "./values";

const DELIMITER = /[\s,()[\]{}";]/;

class Reader {
  at = 0;
  constructor(readonly text: string) {}

  skip(): void {
    while (this.at < this.text.length) {
      const here = this.text[this.at]!;
      if (/[\s,]/.test(here)) this.at++;
      else if (here === ";") {
        const end = this.text.indexOf("\n", this.at);
        this.at = end < 0 ? this.text.length : end + 1;
      } else if (this.text.startsWith("#_", this.at)) {
        this.at += 2;
        this.read();
      } else return;
    }
  }

  read(): Value {
    this.skip();
    const here = this.text[this.at];
    if (here === undefined) throw new SyntaxError("the text ends");
    switch (here) {
      case "[":
        return this.until("]");
      case "(":
        return new EdnList(this.until(")"));
      case "{":
        return paired(this.until("}"));
      case '"':
        return this.string();
      case "\\":
        this.at += 2;
        this.token();
        return new Special("char", "");
      case "#":
        return this.dispatch();
    }
    if (")]}".includes(here)) throw new SyntaxError(`${here} closes nothing`);
    return atom(this.token());
  }

  until(close: string): Value[] {
    this.at++;
    const items: Value[] = [];
    for (;;) {
      this.skip();
      if (this.text[this.at] === undefined) throw new SyntaxError(`${close} is missing`);
      if (this.text[this.at] === close) {
        this.at++;
        return items;
      }
      items.push(this.read());
    }
  }

  string(): string {
    let made = "";
    for (this.at++; this.text[this.at] !== '"'; this.at++) {
      const here = this.text[this.at];
      if (here === undefined) throw new SyntaxError('" is missing');
      if (here !== "\\") made += here;
      else {
        const escaped = this.text[++this.at]!;
        made += { n: "\n", t: "\t", r: "\r" }[escaped] ?? escaped;
      }
    }
    this.at++;
    return made;
  }

  dispatch(): Value {
    const next = this.text[this.at + 1];
    this.at++;
    if (next === "{") return new EdnSet(this.until("}"));
    if (next === '"') return new Special("regex", this.string());
    if (next === "#") {
      this.at++;
      return new Special("double", `##${this.token()}`);
    }
    const tag = this.token();
    const value = this.read();
    if (tag === "inst" && typeof value === "string") return new Date(value);
    if (tag === "uuid") return new Special("uuid", `#uuid "${String(value)}"`);
    return new Tagged(tag, value);
  }

  token(): string {
    const start = this.at;
    while (this.at < this.text.length && !DELIMITER.test(this.text[this.at]!)) this.at++;
    if (this.at === start) throw new SyntaxError(`${this.text[start]} is out of place`);
    return this.text.slice(start, this.at);
  }
}

function paired(items: Value[]): EdnMap {
  if (items.length % 2 !== 0) throw new SyntaxError("a map lacks a value");
  const pairs: [Value, Value][] = [];
  for (let at = 0; at < items.length; at += 2) pairs.push([items[at]!, items[at + 1]!]);
  return new EdnMap(pairs);
}

function atom(token: string): Value {
  if (token === "nil") return null;
  if (token === "true") return true;
  if (token === "false") return false;
  if (token.startsWith(":")) return new Keyword(token.slice(1));
  if (/^[-+]?\d+N?$/.test(token)) {
    const number = BigInt(token.replace(/^\+|N$/g, ""));
    const small = Number(number);
    return Number.isSafeInteger(small) ? small : number;
  }
  if (/^[-+]?\d/.test(token)) return new Special(token.endsWith("M") ? "decimal" : "double", token);
  return new Sym(token);
}

/** The only value in a text; `SyntaxError` for anything else. */
export function readEdn(text: string): Value {
  const reader = new Reader(text);
  const value = reader.read();
  reader.skip();
  if (reader.at < text.length) throw new SyntaxError("something follows the value");
  return value;
}

/** As `readEdn`, undefined instead of an error. */
export function tryEdn(text: string): Value | undefined {
  try {
    return readEdn(text);
  } catch {
    return undefined;
  }
}
