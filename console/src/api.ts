// Requests to the service, and whether it can be reached.

import { signal } from "@preact/signals";
import { decode, type Struct, type Value } from "./values";

export interface About extends Struct {
  version: string;
  prefix: string;
  write: boolean;
  ready: boolean;
  functions: string[];
  aggregates: string[];
}

/** An error that the service answered: `code` is its class, `error` its type, `data` what was at fault. */
export class ServiceError extends Error {
  constructor(
    readonly code: string,
    readonly error: string | null,
    message: string,
    readonly data: Value,
    readonly status: number,
  ) {
    super(message);
  }
}

/** No answer came at all. */
export class Unreachable extends Error {}

export type Reach = "connecting" | "up" | "no-nats" | "down";

export const reach = signal<Reach>("connecting");
/** Counts up whenever the service can be reached again, so that what is shown is asked for anew. */
export const returns = signal(0);
export const about = signal<About | null>(null);

const PROBE_MS = 1500;
let probing = false;

function lost(how: "down" | "no-nats"): void {
  reach.value = how;
  if (!probing) {
    probing = true;
    setTimeout(probe, PROBE_MS / 3);
  }
}

async function probe(): Promise<void> {
  try {
    const answer = await fetch("/api/about", { cache: "no-store" });
    if (!answer.ok) throw new Error();
    const found = decode(await answer.json()) as About;
    if (found.ready) {
      probing = false;
      const was = reach.value;
      about.value = found;
      reach.value = "up";
      if (was !== "up") returns.value++;
      return;
    }
    reach.value = "no-nats";
  } catch {
    reach.value = "down";
  }
  setTimeout(probe, PROBE_MS);
}

export function connect(): void {
  probing = true;
  void probe();
}

/** Look at once whether the service is there: for the button of the message that it is not. */
export function noteLost(): void {
  lost("down");
}

/** Ask an endpoint.  `ServiceError`, `Unreachable`, or an AbortError when `stop` is used. */
export async function ask(
  database: string,
  branch: string,
  endpoint: string,
  body: unknown = {},
  stop?: AbortSignal,
): Promise<Struct> {
  let answer: Response;
  let text: string;
  try {
    answer = await fetch(`/api/${database}/${branch}/${endpoint}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: stop ?? null,
    });
    text = await answer.text();
  } catch (error) {
    if (stop?.aborted) throw error;
    lost("down");
    throw new Unreachable("The service cannot be reached.");
  }
  if (!answer.ok) throw refused(answer.status, text);
  return decode(JSON.parse(text)) as Struct;
}

function refused(status: number, text: string): ServiceError {
  let body: Struct;
  try {
    body = decode(JSON.parse(text)) as Struct;
  } catch {
    body = { code: `HTTP ${status}`, error: null, message: text.trim() || "no reason given", data: {} };
  }
  if (body.code === "Unavailable") lost("no-nats");
  return new ServiceError(
    String(body.code),
    body.error === null ? null : String(body.error),
    String(body.message),
    body.data ?? {},
    status,
  );
}

/** Free text as a string of a request, in which a colon in front would make a keyword of it. */
export function plainText(text: string): string {
  return text.startsWith(":") ? `:${text}` : text;
}

/** Whether the service, or what it needs, is away: that passes. */
export const isAway = (error: unknown): boolean =>
  error instanceof Unreachable || (error instanceof ServiceError && error.status === 503);

export const isAbort = (error: unknown): boolean =>
  error instanceof DOMException && error.name === "AbortError";
