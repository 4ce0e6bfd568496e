// The state that a link carries: #/DATABASE/BRANCH/PAGE/ARGUMENT?t=…&q=…

import { signal } from "@preact/signals";

export type Page = "home" | "query" | "entity" | "graph" | "live" | "schema" | "transact";

export interface Route {
  page: Page;
  database: string | null;
  branch: string;
  argument: string | null;
  params: URLSearchParams;
}

const PAGES = new Set<string>(["query", "entity", "graph", "live", "schema", "transact"]);
export const MAIN_BRANCH = "db";

function parse(hash: string): Route {
  const [path = "", search = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [database, branch, page, ...rest] = path.split("/").map(decodeURIComponent);
  const params = new URLSearchParams(search);
  if (!database) return { page: "home", database: null, branch: MAIN_BRANCH, argument: null, params };
  return {
    page: PAGES.has(page ?? "") ? (page as Page) : "query",
    database,
    branch: branch || MAIN_BRANCH,
    argument: rest.join("/") || null,
    params,
  };
}

function safely(hash: string): Route {
  try {
    return parse(hash);
  } catch {
    return parse(""); // malformed escapes in a link
  }
}

export const route = signal<Route>(safely(location.hash));

addEventListener("hashchange", () => {
  route.value = safely(location.hash);
});

export function hashOf(to: Route): string {
  if (to.database === null) return "#/";
  const words = [to.database, to.branch, to.page, ...(to.argument === null ? [] : [to.argument])];
  const search = to.params.toString();
  return `#/${words.map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`;
}

export type Change = Partial<Omit<Route, "params">> & {
  params?: Record<string, string | number | null | undefined>;
  /** Forget every parameter but those of time. */
  fresh?: boolean;
};

const OF_TIME = ["t", "h"];

export function changed(change: Change): Route {
  const from = route.value;
  const params = new URLSearchParams(change.fresh ? "" : from.params);
  if (change.fresh) {
    for (const name of OF_TIME) {
      const kept = from.params.get(name);
      if (kept !== null) params.set(name, kept);
    }
  }
  for (const [name, value] of Object.entries(change.params ?? {})) {
    if (value === null || value === undefined || value === "") params.delete(name);
    else params.set(name, String(value));
  }
  const { params: _, fresh: __, ...rest } = change;
  return { ...from, argument: null, ...rest, params };
}

/** A link to what `change` makes of the present state. */
export function link(change: Change): string {
  return hashOf(changed(change));
}

/** Go there; `replace` without an entry in the browser's history. */
export function go(change: Change, replace = false): void {
  const to = changed({ ...("argument" in change ? {} : { argument: route.value.argument }), ...change });
  const hash = hashOf(to);
  if (hash === location.hash) return;
  if (replace) history.replaceState(null, "", hash);
  else history.pushState(null, "", hash);
  route.value = to;
}
