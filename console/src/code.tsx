// EDN text in colours, as the editor has them.

import { classHighlighter, highlightCode } from "@lezer/highlight";
import { clojureLanguage } from "@nextjournal/lang-clojure";
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";

const LENGTH_MAX = 60_000;

/** `text` with its values in colours; a long text stays plain. */
export function Code({ text }: { text: string }) {
  const parts = useMemo(() => (text.length > LENGTH_MAX ? text : coloured(text)), [text]);
  return <>{parts}</>;
}

function coloured(text: string): ComponentChildren[] {
  const parts: ComponentChildren[] = [];
  highlightCode(
    text,
    clojureLanguage.parser.parse(text),
    classHighlighter,
    (piece, classes) => parts.push(classes === "" ? piece : <span class={classes}>{piece}</span>),
    () => parts.push("\n"),
  );
  return parts;
}
