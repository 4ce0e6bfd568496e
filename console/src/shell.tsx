// What surrounds every page: head line, navigation, time, messages, help.

import { useEffect, useRef } from "preact/hooks";
import { about, reach, ServiceError } from "./api";
import { EntityPage } from "./entity";
import { following } from "./feed";
import { GraphPage } from "./graph";
import { HomePage } from "./home";
import { helpOpen, SHORTCUTS } from "./keys";
import { LivePage } from "./live";
import { QueryPage } from "./query";
import { go, link, MAIN_BRANCH, route, type Page } from "./route";
import { SchemaPage } from "./schema-page";
import { Empty, ErrorNote } from "./shown";
import { databases, headTx, otherBranches, shortTx, trouble } from "./state";
import { chooseTheme, theme, type Theme } from "./theme";
import { TimeBar } from "./timebar";
import { TransactPage } from "./transact";

const PAGES: [Page, string, () => preact.JSX.Element][] = [
  ["query", "Query", QueryPage],
  ["entity", "Entities", EntityPage],
  ["graph", "Graph", GraphPage],
  ["live", "Live", LivePage],
  ["schema", "Schema", SchemaPage],
  ["transact", "Transact", TransactPage],
];
const TIMELESS = new Set<Page>(["home", "live", "graph"]);

export function Shell() {
  const { page, database, branch } = route.value;
  const found = PAGES.find(([name]) => name === page);
  const Shown = database === null || found === undefined ? HomePage : found[2];
  useEffect(() => {
    const title = database === null ? "Databases" : `${database}${branch === MAIN_BRANCH ? "" : `/${branch}`}`;
    document.title = `${title} · ${found?.[1] ?? "Natalog"}`;
  }, [database, branch, page]);
  const away = reach.value === "down" || reach.value === "no-nats";
  return (
    <div class={`shell${away ? " away" : ""}`}>
      <a class="skip" href="#main" onClick={skip}>
        Skip to the page
      </a>
      <Head />
      {away && <Away />}
      {database !== null && !TIMELESS.has(page) && <TimeBar />}
      <main id="main" tabIndex={-1} class={`page-${page}`}>
        {database !== null && (
          <h1 class="sr">
            {found?.[1]}: {database}
          </h1>
        )}
        {reach.value === "connecting" ? (
          <Empty title="Connecting …" />
        ) : database !== null && trouble.value !== null && isMissing(trouble.value) ? (
          <Missing />
        ) : (
          <Shown key={`${database}/${branch}/${page === "entity" ? "entity" : page}`} />
        )}
      </main>
      <Help />
    </div>
  );
}

function skip(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

const MISSING = new Set(["DatabaseNotFound", "BranchNotFound", "InvalidName"]);
const isMissing = (error: unknown): boolean => error instanceof ServiceError && MISSING.has(error.code);

function Missing() {
  return (
    <div class="pad-all">
      <ErrorNote error={trouble.value}>
        <p>
          <a href="#/">All databases</a>
        </p>
      </ErrorNote>
    </div>
  );
}

function Head() {
  const { page, database, branch } = route.value;
  return (
    <header class="head-line">
      <a class="brand" href="#/" title="all databases">
        <svg viewBox="0 0 32 32" aria-hidden="true">
          <path d="M10 25V9c0 8.500 12 6.500 12 15" />
          <circle cx="10" cy="8" r="3.500" />
          <circle cx="10" cy="24" r="3.500" />
          <circle class="second" cx="22" cy="24" r="3.500" />
        </svg>
        Natalog
      </a>
      {database !== null && <Place database={database} branch={branch} />}
      {database !== null && (
        <nav aria-label="pages">
          {PAGES.filter(([name]) => name !== "transact" || about.value?.write).map(([name, title]) => (
            <a
              href={link({ page: name, argument: null, fresh: true })}
              aria-current={page === name ? "page" : undefined}
            >
              {title}
            </a>
          ))}
        </nav>
      )}
      <span class="grow" />
      <Status />
      <ThemeSwitch />
      <button type="button" class="quiet round" onClick={() => (helpOpen.value = true)} aria-label="keyboard shortcuts">
        ?
      </button>
    </header>
  );
}

function Place({ database, branch }: { database: string; branch: string }) {
  const names = databases.value?.map((each) => each.database) ?? [database];
  const branches = otherBranches();
  const page = route.value.page;
  return (
    <span class="place">
      <label>
        <span class="sr">database</span>
        <select
          value={database}
          onChange={(event) =>
            go({
              database: event.currentTarget.value,
              branch: MAIN_BRANCH,
              page: page === "home" ? "query" : page,
              argument: null,
              params: { t: null },
              fresh: true,
            })
          }
        >
          {(names.includes(database) ? names : [database, ...names]).map((name) => (
            <option value={name}>{name}</option>
          ))}
        </select>
      </label>
      <span class="slash" aria-hidden="true">
        /
      </span>
      <label>
        <span class="sr">branch</span>
        <select
          value={branch}
          onChange={(event) => go({ branch: event.currentTarget.value, params: { t: null } })}
        >
          {(branches.includes(branch) ? branches : [branch, ...branches]).map((name) => (
            <option value={name}>{name}</option>
          ))}
        </select>
      </label>
    </span>
  );
}

function Status() {
  const up = reach.value === "up";
  const text = !up ? "not connected" : following.value ? "live" : "connected";
  return (
    <span class={`status ${up ? (following.value ? "live" : "up") : "off"}`} role="status">
      <span class="lamp" aria-hidden="true" />
      {text}
      {up && headTx.value !== null && route.value.database !== null && (
        <span class="faint">head tx {shortTx(headTx.value)}</span>
      )}
    </span>
  );
}

const THEMES: [Theme, string, string][] = [
  ["system", "◐", "colours as the system has them"],
  ["light", "☀", "light colours"],
  ["dark", "☾", "dark colours"],
];

function ThemeSwitch() {
  const at = THEMES.findIndex(([name]) => name === theme.value);
  const [, sign, text] = THEMES[at]!;
  const [next] = THEMES[(at + 1) % THEMES.length]!;
  return (
    <button
      type="button"
      class="quiet round theme"
      onClick={() => chooseTheme(next)}
      title={`${text}; click for the next`}
      aria-label={`${text}; change`}
    >
      {sign}
    </button>
  );
}

function Away() {
  return (
    <div class="banner" role="alert">
      <span class="spinner" aria-hidden="true" />
      {reach.value === "down" ? (
        <span>
          <b>The service cannot be reached.</b> Is <code>natalog serve</code> running? This page tries again by
          itself; what it shows is what it saw last.
        </span>
      ) : (
        <span>
          <b>The service has no connection to NATS.</b> It tries to connect again, and so does this page.
        </span>
      )}
    </div>
  );
}

function Help() {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (helpOpen.value) dialog.current?.showModal();
    else dialog.current?.close();
  }, [helpOpen.value]);
  return (
    <dialog
      ref={dialog}
      aria-label="keyboard shortcuts"
      onClose={() => (helpOpen.value = false)}
      onClick={(event) => {
        if (event.target === dialog.current) helpOpen.value = false;
      }}
    >
      <form method="dialog">
        <header>
          <h2>Keyboard</h2>
          <button type="submit" class="quiet">
            Close
          </button>
        </header>
        <dl>
          {SHORTCUTS.map(([keys, what]) => (
            <>
              <dt>
                {keys.split("  ").map((key) => (
                  <kbd>{key}</kbd>
                ))}
              </dt>
              <dd>{what}</dd>
            </>
          ))}
        </dl>
      </form>
    </dialog>
  );
}

