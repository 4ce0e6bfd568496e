// The text editor: CodeMirror with Clojure's syntax, which EDN is a part of.

import { acceptCompletion, autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { bracketMatching, forceParsing, indentOnInput, syntaxHighlighting } from "@codemirror/language";
import { setDiagnostics, type Diagnostic } from "@codemirror/lint";
import { Compartment, EditorState, Prec } from "@codemirror/state";
import {
  Decoration,
  drawSelection,
  EditorView,
  keymap,
  MatchDecorator,
  placeholder as placeholderText,
  ViewPlugin,
  type DecorationSet,
  type ViewUpdate,
} from "@codemirror/view";
import { classHighlighter } from "@lezer/highlight";
import { clojure } from "@nextjournal/lang-clojure";
import { useEffect, useRef } from "preact/hooks";
import { completions, type Kind } from "./completion";
import { useLatest } from "./hooks";

const nonce = document.querySelector<HTMLMetaElement>('meta[name="style-nonce"]')?.content ?? "";

function marked(regexp: RegExp, name: string) {
  const matcher = new MatchDecorator({ regexp, decoration: Decoration.mark({ class: name }) });
  return ViewPlugin.fromClass(
    class {
      decorations: DecorationSet;
      constructor(view: EditorView) {
        this.decorations = matcher.createDeco(view);
      }
      update(update: ViewUpdate) {
        this.decorations = matcher.updateDeco(update, this.decorations);
      }
    },
    { decorations: (plugin) => plugin.decorations },
  );
}

const VARIABLES = marked(/(?<![\w:/"])[?$][\w*+!<>=.-]*/g, "tok-variable");
const SECTIONS = marked(/:(?:find|in|where|with|keys|strs|syms|limit|offset|order-by)(?![\w/-])/g, "tok-section");

export interface Mark {
  line: number;
  column: number;
  message: string;
}

interface Properties {
  value: string;
  /** Counts the values that come from elsewhere than the editor: only those replace its text. */
  revision: number;
  label: string;
  kind: Kind;
  placeholder?: string;
  mark?: Mark | null;
  focus?: boolean;
  onChange: (text: string) => void;
  onRun: () => void;
  onCommit?: () => void;
}

function diagnostics(state: EditorState, mark: Mark | null | undefined): Diagnostic[] {
  if (mark === null || mark === undefined) return [];
  const line = state.doc.line(Math.min(Math.max(mark.line, 1), state.doc.lines));
  const from = Math.min(line.from + Math.max(mark.column - 1, 0), line.to);
  const to = Math.min(from + 1, state.doc.length);
  return [{ from: Math.min(from, to), to, severity: "error", message: mark.message }];
}

const PARSE_MS = 100;

/** Brackets are matched by the syntax tree, which a long text gets only bit by bit. */
function settle(view: EditorView, anchor: number): void {
  forceParsing(view, view.state.doc.length, PARSE_MS);
  view.dispatch({ selection: { anchor: Math.min(anchor, view.state.doc.length) } });
}

/** A text field for EDN; Ctrl/Cmd+Enter calls `onRun`, Escape leaves it. */
export function Editor(properties: Properties) {
  const host = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  const latest = useLatest(properties);

  useEffect(() => {
    const hints = new Compartment();
    const made = new EditorView({
      parent: host.current!,
      state: EditorState.create({
        doc: latest.current.value,
        extensions: [
          EditorView.cspNonce.of(nonce),
          Prec.highest(
            keymap.of([
              {
                key: "Mod-Enter",
                run: () => {
                  latest.current.onRun();
                  return true;
                },
              },
              {
                key: "Mod-Shift-Enter",
                run: () => {
                  latest.current.onCommit?.();
                  return latest.current.onCommit !== undefined;
                },
              },
            ]),
          ),
          history(),
          drawSelection(),
          indentOnInput(),
          bracketMatching(),
          closeBrackets(),
          autocompletion({
            override: [completions(latest.current.kind)],
            icons: false,
            maxRenderedOptions: 60,
            activateOnCompletion: () => false,
          }),
          clojure(),
          syntaxHighlighting(classHighlighter),
          VARIABLES,
          SECTIONS,
          keymap.of([
            ...closeBracketsKeymap,
            ...completionKeymap,
            { key: "Tab", run: acceptCompletion },
            ...historyKeymap,
            ...defaultKeymap,
            {
              key: "Escape",
              run: (editor) => {
                editor.contentDOM.blur();
                return true;
              },
            },
          ]),
          hints.of(placeholderText(latest.current.placeholder ?? "")),
          EditorView.lineWrapping,
          EditorView.contentAttributes.of({
            "aria-label": latest.current.label,
            "aria-multiline": "true",
            spellcheck: "false",
          }),
          EditorView.updateListener.of((update) => {
            if (update.docChanged) latest.current.onChange(update.state.doc.toString());
          }),
        ],
      }),
    });
    view.current = made;
    if (latest.current.focus) made.focus();
    settle(made, made.state.doc.length);
    return () => made.destroy();
  }, []);

  useEffect(() => {
    const made = view.current;
    if (made === null || made.state.doc.toString() === properties.value) return;
    made.dispatch({ changes: { from: 0, to: made.state.doc.length, insert: properties.value } });
    settle(made, properties.value.length);
  }, [properties.revision]);

  useEffect(() => {
    const made = view.current;
    if (made !== null) made.dispatch(setDiagnostics(made.state, diagnostics(made.state, properties.mark)));
  }, [properties.mark]);

  return <div class="editor" ref={host} />;
}
