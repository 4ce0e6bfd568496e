// Asking the service from a component.

import { useEffect, useRef, useState } from "preact/hooks";
import { isAbort, isAway, returns } from "./api";

export interface Asked<T> {
  value: T | null;
  error: unknown;
  busy: boolean;
}

/**
 * What `load` finds, again whenever `key` changes or the service returns.  The value before stays
 * while the next one is on its way; an answer that nobody waits for is dropped.  A null `key` asks
 * nothing.
 */
export function useAsk<T>(
  key: readonly unknown[] | null,
  load: (stop: AbortSignal) => Promise<T>,
): Asked<T> {
  const [asked, set] = useState<Asked<T>>({ value: null, error: null, busy: key !== null });
  const again = returns.value;
  const text = key === null ? null : JSON.stringify(key);
  useEffect(() => {
    if (text === null) {
      set({ value: null, error: null, busy: false });
      return;
    }
    const stop = new AbortController();
    set((before) => ({ ...before, busy: true }));
    load(stop.signal).then(
      (value) => {
        if (!stop.signal.aborted) set({ value, error: null, busy: false });
      },
      (error: unknown) => {
        if (isAbort(error) || stop.signal.aborted) return;
        // what is shown stays; the banner tells that the service is away
        if (isAway(error)) {
          set((before) => ({ value: before.value, error: before.value === null ? error : null, busy: false }));
        } else set({ value: null, error, busy: false });
      },
    );
    return () => stop.abort();
  }, [text, again]);
  return asked;
}

/** The latest `value` in a box that never changes: for handlers that outlive a render. */
export function useLatest<T>(value: T): { current: T } {
  const box = useRef(value);
  box.current = value;
  return box;
}
