// Queries to begin with: those of before, and some that fit the schema.

import { useState } from "preact/hooks";
import type { Past } from "./query";
import type { Schema } from "./schema";
import { schema } from "./state";

interface Starter {
  title: string;
  text: string;
}

function short(ident: string): string {
  return ident.split("/").pop()!.replace(/[^A-Za-z0-9-]/g, "") || "v";
}

/** Queries over the attributes that a database has. */
export function startersFor(read: Schema): Starter[] {
  const first = read.labels[0] ?? read.attributes[0];
  if (first === undefined) {
    return [
      { title: "All facts", text: "[:find ?e ?a ?v\n :where [?e ?a ?v]]" },
      {
        title: "Transactions and their instants",
        text: "[:find ?tx ?instant\n :where [?tx :db/txInstant ?instant]]",
      },
    ];
  }
  const a = first.ident;
  const name = short(a);
  const space = a.includes("/") ? a.split("/")[0] : null;
  const sibling = read.attributes.find(
    (each) => each !== first && !each.many && !each.isRef && each.ident.split("/")[0] === (space ?? each.ident),
  ) ?? read.attributes.find((each) => each !== first && !each.isRef);
  const ref = read.refs.find((each) => each.ident.split("/")[0] === space) ?? read.refs[0];
  const found: Starter[] = [
    {
      title: sibling ? `${name} and ${short(sibling.ident)}` : `Everything with ${name}`,
      text: sibling
        ? `[:find ?e ?${name} ?${short(sibling.ident)}\n :where [?e :${a} ?${name}]\n        [?e :${sibling.ident} ?${short(sibling.ident)}]]`
        : `[:find ?e ?${name}\n :where [?e :${a} ?${name}]]`,
    },
    { title: "Whole entities", text: `[:find (pull ?e [*])\n :where [?e :${a}]]` },
  ];
  if (ref !== undefined) {
    found.push({
      title: `Counted by ${short(ref.ident)}`,
      text: `[:find ?${short(ref.ident)} (count ?e)\n :where [?e :${ref.ident} ?${short(ref.ident)}]]`,
    });
  }
  found.push({
    title: `When ${name} changed (with history)`,
    text: `[:find ?e ?${name} ?instant ?added\n :where [?e :${a} ?${name} ?tx ?added]\n        [?tx :db/txInstant ?instant]]`,
  });
  return found;
}

interface Properties {
  recent: Past[];
  onChoose: (past: Past) => void;
}

export function Starters({ recent, onChoose }: Properties) {
  const [shown, setShown] = useState<"recent" | "starters">(recent.length > 0 ? "recent" : "starters");
  const starters = startersFor(schema.value);
  const list: { title: string; past: Past }[] =
    shown === "recent"
      ? recent.map((past) => ({ title: past.text, past }))
      : starters.map(({ title, text }) => ({ title, past: { text, inputs: [] } }));
  return (
    <div class="starters">
      <div class="tabs small" role="tablist" aria-label="queries to choose from">
        <button type="button" role="tab" aria-selected={shown === "starters"} onClick={() => setShown("starters")}>
          To begin with
        </button>
        <button
          type="button"
          role="tab"
          aria-selected={shown === "recent"}
          disabled={recent.length === 0}
          onClick={() => setShown("recent")}
        >
          Recent
        </button>
      </div>
      <ul>
        {list.map(({ title, past }) => (
          <li>
            <button type="button" onClick={() => onChoose(past)} title={past.text}>
              {shown === "recent" ? <code>{title.replace(/\s+/g, " ")}</code> : title}
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}
