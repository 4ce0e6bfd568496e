// Two panes with a border that can be moved by mouse or arrow keys.

import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { load, save } from "./stored";

const LEAST = 22;
const MOST = 70;

interface Properties {
  name: string;
  initial: number;
  left: ComponentChildren;
  right: ComponentChildren;
  leftLabel: string;
  rightLabel: string;
}

/** `initial`: per cent of the width that the left pane has until somebody moves the border. */
export function Split({ name, initial, left, right, leftLabel, rightLabel }: Properties) {
  const [share, setShare] = useState<number>(() => load(`split:${name}`, initial));
  const host = useRef<HTMLDivElement>(null);
  const move = (to: number) => {
    const bounded = Math.min(MOST, Math.max(LEAST, Math.round(to * 10) / 10));
    setShare(bounded);
    save(`split:${name}`, bounded);
  };
  const drag = (event: PointerEvent) => {
    const handle = event.currentTarget as HTMLElement;
    handle.setPointerCapture(event.pointerId);
    const onMove = (moved: PointerEvent) => {
      const box = host.current!.getBoundingClientRect();
      move(((moved.clientX - box.left) / box.width) * 100);
    };
    handle.addEventListener("pointermove", onMove);
    handle.addEventListener("lostpointercapture", () => handle.removeEventListener("pointermove", onMove), {
      once: true,
    });
  };
  const key = (event: KeyboardEvent) => {
    const step = { ArrowLeft: -2, ArrowRight: 2 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    move(share + step);
  };
  return (
    <div class="split" ref={host} style={{ "--share": `${share}%` }}>
      <section class="pane" aria-label={leftLabel}>
        {left}
      </section>
      <div
        class="splitter"
        role="separator"
        tabIndex={0}
        aria-orientation="vertical"
        aria-label="border between the panes"
        aria-valuenow={share}
        aria-valuemin={LEAST}
        aria-valuemax={MOST}
        onPointerDown={drag}
        onKeyDown={key}
        onDblClick={() => move(initial)}
      />
      <section class="pane" aria-label={rightLabel}>
        {right}
      </section>
    </div>
  );
}
