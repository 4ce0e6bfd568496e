// Keyboard shortcuts that hold on every page.

import { signal } from "@preact/signals";
import { go, route, type Page } from "./route";
import { asOf, pointAt, positionOf, transactions, withHistory } from "./state";
import { chooseTheme, theme } from "./theme";

const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
export const RUN_KEY = isMac ? "⌘⏎" : "Ctrl+Enter";
export const COMMIT_KEY = isMac ? "⌘⇧⏎" : "Ctrl+Shift+Enter";

export const helpOpen = signal(false);

export const SHORTCUTS: [string, string][] = [
  [RUN_KEY, "run the query; preview the transaction"],
  [COMMIT_KEY, "commit the transaction, where writing is allowed"],
  ["Ctrl+Space", "complete"],
  ["Esc", "leave the editor"],
  ["/", "go to the editor or the field of the page"],
  ["[  ]", "one transaction back, one forward"],
  ["n", "now"],
  ["h", "with history, or without"],
  ["g  q", "Query"],
  ["g  e", "Entities"],
  ["g  g", "Graph"],
  ["g  l", "Live"],
  ["g  s", "Schema"],
  ["g  t", "Transact"],
  ["g  d", "Databases"],
  ["c", "change colours: system, light, dark"],
  ["?", "this list"],
];

const PAGES: Record<string, Page> = {
  q: "query",
  e: "entity",
  g: "graph",
  l: "live",
  s: "schema",
  t: "transact",
};

/** Move by transactions: −1 is the one before. */
export function step(by: number): void {
  const at = positionOf(asOf.value) + by;
  if (at >= 0 && transactions.value.ids.length > 0) go({ params: { t: pointAt(at) } }, true);
}

function focusField(): boolean {
  const field = document.querySelector<HTMLElement>("main .cm-content, main input[type=search], main input[type=text]");
  field?.focus();
  return field !== null;
}

function isField(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))
  );
}

const SIMPLE: Record<string, () => boolean | void> = {
  "?": () => {
    helpOpen.value = true;
  },
  "/": focusField,
  "[": () => step(-1),
  "]": () => step(1),
  n: () => go({ params: { t: null } }, true),
  h: () => go({ params: { h: withHistory.value ? null : "1" } }, true),
  c: () => {
    const order = ["system", "light", "dark"] as const;
    chooseTheme(order[(order.indexOf(theme.value) + 1) % order.length]!);
  },
};

export function startKeys(canWrite: () => boolean): void {
  let going = 0;
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isField(event.target)) return;
    if (document.querySelector("dialog[open]") !== null) return;
    const here = route.value.database !== null;
    if (event.timeStamp - going < 1200 && going > 0) {
      going = 0;
      if (event.key === "d") go({ database: null, fresh: true });
      const page = PAGES[event.key];
      if (page !== undefined && here && (page !== "transact" || canWrite())) go({ page, argument: null, fresh: true });
      event.preventDefault();
      return;
    }
    if (event.key === "g") {
      going = event.timeStamp;
      return;
    }
    const act = SIMPLE[event.key];
    if (act === undefined) return;
    if (act() !== false) event.preventDefault();
  });
}
