// Bundles the console into ../src/natalog/console: one script, one style sheet, two fonts, the page,
// the licences of what is in it, and a digest of the sources by which a test sees a stale bundle.

import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile, copyFile } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "..", "src", "natalog", "console");

async function filesUnder(folder) {
  const found = [];
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) found.push(...(await filesUnder(path)));
    else found.push(path);
  }
  return found;
}

async function digest() {
  const single = ["package.json", "package-lock.json", "tsconfig.json", "build.mjs"];
  const paths = [...single.map((name) => join(here, name)), ...(await filesUnder(join(here, "src")))];
  const hash = createHash("sha256");
  for (const path of paths.map((path) => relative(here, path).replaceAll("\\", "/")).sort()) {
    hash.update(`${path}\n`);
    hash.update(await readFile(join(here, path)));
    hash.update("\n");
  }
  return hash.digest("hex");
}

function packageOf(input) {
  const parts = input.split("node_modules/");
  if (parts.length < 2) return null;
  const [first, second] = parts.at(-1).split("/");
  return first.startsWith("@") ? `${first}/${second}` : first;
}

async function licences(inputs) {
  const names = [...new Set(inputs.map(packageOf).filter((name) => name !== null))].sort();
  const texts = ["The web console of Natalog contains these packages.\n"];
  for (const name of names) {
    const folder = join(here, "node_modules", name);
    const about = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const file = (await readdir(folder)).find((entry) => /^(licen[cs]e|copying)/i.test(entry));
    const text = file === undefined ? "" : (await readFile(join(folder, file), "utf8")).trim();
    texts.push(`${"=".repeat(80)}\n${name} ${about.version} (${about.license})\n\n${text}\n`);
  }
  return texts.join("\n");
}

await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
const built = await esbuild.build({
  absWorkingDir: here,
  entryPoints: { console: "src/main.tsx" },
  outdir: target,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022", "chrome123", "firefox120", "safari17.5"],
  jsx: "automatic",
  jsxImportSource: "preact",
  loader: { ".woff2": "file" },
  assetNames: "[name]",
  legalComments: "none",
  charset: "utf8",
  metafile: true,
  logLevel: "warning",
});
await copyFile(join(here, "src", "index.html"), join(target, "index.html"));
await copyFile(join(here, "src", "icon.svg"), join(target, "icon.svg"));
await writeFile(join(target, "licences.txt"), await licences(Object.keys(built.metafile.inputs)));
await writeFile(join(target, "sources.txt"), `${await digest()}\n`);
for (const path of (await filesUnder(target)).sort()) {
  console.log(`${String((await readFile(path)).length).padStart(8)}  ${basename(path)}`);
}
