/** Questions to the service: its errors, its absence and its new versions, told in one place. */

import { signal } from "@preact/signals";
import { type Table, tableFromIPC } from "@uwdata/flechette";

/** Whether the service answers: `lost` while it does not, `token` where it wants one. */
export const connection = signal<"ok" | "lost" | "token">("ok");

/** The atlas's version of the newest reply; empty before the first. */
export const newestVersion = signal("");

/** A question that the service refused, in its own words. */
export class AtlasProblem extends Error {
  constructor(
    /** HTTP status. */
    readonly status: number,
    /** As the service names it: `not_found`, `bad_query`, `over_limit`, … */
    readonly kind: string,
    message: string,
  ) {
    super(message);
    this.name = "AtlasProblem";
  }
}

/** Parameters of a URL; those undefined or empty are left out, lists are repeated. */
export type Parameters = Readonly<
  Record<string, string | number | boolean | readonly string[] | undefined>
>;

/** A reply that counts beyond its rows. */
export interface Answer {
  readonly table: Table;
  /** True where a limit cut it. */
  readonly isTruncated: boolean;
}

/** A reply that came whole. */
interface Received {
  readonly status: number;
  readonly headers: Headers;
  readonly body: ArrayBuffer;
}

const ARROW = "application/vnd.apache.arrow.stream";
const RETRIES_WHEN_BUSY = 8;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5_000;
/** What proxies answer while the service behind them is away; the service says none of these. */
const AWAY: ReadonlySet<number> = new Set([502, 503, 504]);

/** Ask for JSON. Waits while the service is away. Raises AtlasProblem, or AbortError. */
export async function ask<T>(
  path: string,
  parameters: Parameters = {},
  signal?: AbortSignal,
): Promise<T> {
  const reply = await send(
    writeUrl(path, parameters),
    { headers: { Accept: "application/json" } },
    signal,
  );
  return decode(reply, () => JSON.parse(toText(reply)) as T);
}

/** Ask for an Arrow table; integers come as numbers, as ids are below 2^53. */
export async function askArrow(
  path: string,
  parameters: Parameters = {},
  signal?: AbortSignal,
): Promise<Table> {
  const reply = await send(writeUrl(path, parameters), { headers: { Accept: ARROW } }, signal);
  return readTable(reply);
}

/** Ask SQL for an Arrow table. Values go as parameters (`$name`), never into the text. */
export async function askSql(
  sql: string,
  parameters: Readonly<Record<string, unknown>> = {},
  signal?: AbortSignal,
  maxRows?: number,
): Promise<Answer> {
  const reply = await postSql(sql, parameters, "arrow", signal, maxRows);
  const table = readTable(reply);
  return { table, isTruncated: reply.headers.get("X-Truncated") === "true" };
}

/** Ask SQL for a file; one that a limit would cut is refused. */
export async function askFile(
  sql: string,
  parameters: Readonly<Record<string, unknown>>,
  format: "parquet" | "csv",
  signal?: AbortSignal,
): Promise<Blob> {
  const reply = await postSql(sql, parameters, format, signal);
  if (reply.headers.get("X-Truncated") === "true") {
    const message = "the file would have more rows or bytes than one reply may";
    throw new AtlasProblem(413, "over_limit", message);
  }
  return new Blob([reply.body], { type: reply.headers.get("Content-Type") ?? "" });
}

/** The relative URL of a path with parameters, for an image or a link. */
export function writeUrl(path: string, parameters: Parameters = {}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value === undefined || value === "") continue;
    for (const one of Array.isArray(value) ? value : [value]) query.append(name, String(one));
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

function postSql(
  sql: string,
  parameters: Readonly<Record<string, unknown>>,
  format: string,
  signal?: AbortSignal,
  maxRows?: number,
): Promise<Received> {
  const body = JSON.stringify({ sql, parameters, format, max_rows: maxRows });
  const headers = { "Content-Type": "application/json" };
  return send("v1/sql", { method: "POST", headers, body }, signal);
}

async function send(url: string, init: RequestInit, signal?: AbortSignal): Promise<Received> {
  const options = signal ? { ...init, signal } : init;
  for (let attempt = 0; ; attempt++) {
    const reply = await sendOnce(url, options);
    if (reply.status === 429 && attempt < RETRIES_WHEN_BUSY) {
      const asked = 1_000 * (Number(reply.headers.get("Retry-After")) || 1);
      await wait(Math.min(asked, LONGEST_WAIT_MS), signal);
      continue;
    }
    if (reply.status >= 400) throw readProblem(reply);
    newestVersion.value = reply.headers.get("X-Atlas-Version") ?? newestVersion.value;
    return reply;
  }
}

/** Send until a reply came whole: a service that restarts costs a wait and no click. */
async function sendOnce(url: string, init: RequestInit): Promise<Received> {
  for (let pause = FIRST_WAIT_MS; ; pause = Math.min(2 * pause, LONGEST_WAIT_MS)) {
    try {
      const reply = await fetch(url, { ...init, credentials: "same-origin" });
      const body = await reply.arrayBuffer();
      if (!AWAY.has(reply.status)) {
        connection.value = reply.status === 401 ? "token" : "ok";
        return { status: reply.status, headers: reply.headers, body };
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // an AbortError is no lost connection
    }
    connection.value = "lost";
    await wait(pause, init.signal ?? undefined);
  }
}

function readTable(reply: Received): Table {
  return decode(reply, () => tableFromIPC(new Uint8Array(reply.body), { useDate: true }));
}

/** What a body says, or a problem in words: what stands between may send its own page, or cut. */
function decode<T>(reply: Received, read: () => T): T {
  try {
    return read();
  } catch (error) {
    const isPage = reply.headers.get("Content-Type")?.startsWith("text/html") ?? false;
    const found = isPage ? "is a web page" : `came damaged (${(error as Error).message})`;
    const message = `the reply ${found}: something between here and the server may be at fault`;
    throw new AtlasProblem(reply.status, "damaged_reply", message);
  }
}

function toText(reply: Received): string {
  return new TextDecoder().decode(reply.body);
}

function wait(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

function readProblem(reply: Received): AtlasProblem {
  try {
    const { kind, message } = JSON.parse(toText(reply)).error;
    if (typeof kind === "string" && typeof message === "string") {
      return new AtlasProblem(reply.status, kind, message);
    }
  } catch {
    // Not from the service: a proxy's page, of which the status says most.
  }
  return new AtlasProblem(reply.status, "unknown", `the server answered ${reply.status}`);
}
