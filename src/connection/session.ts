import type { Socket } from "node:net";
import type { Client } from "pg";
import { DatabaseError } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import { databaseError } from "./failure.ts";

/** Columns by name, as PostgreSQL writes them; null for NULL. Booleans are "t" and "f". */
export type Row = Readonly<Record<string, string | null>>;

export type QueryValue = string | number | bigint | boolean | null;

export interface QueryOptions {
  readonly signal: AbortSignal;
  /** For $1, $2, ... */
  readonly values?: readonly QueryValue[];
}

export interface SessionParts {
  readonly address: string;
  readonly isPooled: boolean;
  /** The client's own, to cut it. */
  readonly socket: Socket;
}

const END_TIMEOUT_MS = 2000;

/** One session of a server; queries wait for those before them. Disposing ends it. */
export class Session implements AsyncDisposable {
  /** For messages: "localhost:5432". */
  readonly address: string;
  /**
   * Whether something in between, such as PgBouncer, answers for the server: then two queries need
   * not come to the same server process.
   */
  readonly isPooled: boolean;
  readonly #client: Client;
  readonly #socket: Socket;
  readonly #lost = new AbortController();
  #isEnding = false;

  /** Takes over a client that is connected. */
  constructor(client: Client, { address, isPooled, socket }: SessionParts) {
    this.address = address;
    this.isPooled = isPooled;
    this.#client = client;
    this.#socket = socket;
    client.on("error", (error) => this.#lose(error));
    client.on("end", () => this.#lose(undefined));
  }

  /** Aborted, with a DatabaseError as reason, when the session ends without our asking. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /**
   * Rejects with DatabaseError; with the signal's reason as soon as that is aborted, while the
   * query may go on in the server.
   */
  async query(sql: string, { signal, values = [] }: QueryOptions): Promise<readonly Row[]> {
    signal.throwIfAborted();
    if (this.lost.aborted) throw this.lost.reason;
    const texts = values.map((value) => (value === null ? null : String(value)));
    try {
      const running = this.#client.query<Row>({ text: sql, values: texts });
      const result = await untilAborted(running, AbortSignal.any([signal, this.lost]));
      return result.rows;
    } catch (error) {
      signal.throwIfAborted();
      throw databaseError("query failed", error);
    }
  }

  /** The only row. Rejects with DatabaseError when there is none or more than one. */
  async row(sql: string, options: QueryOptions): Promise<Row> {
    const [row, ...more] = await this.query(sql, options);
    if (row !== undefined && more.length === 0) return row;
    throw new DatabaseError(`query gave ${more.length + (row === undefined ? 0 : 1)} rows, not 1`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isEnding = true;
    // A server that hangs must not hold us; it notices the closed socket by itself.
    const timer = setTimeout(() => this.#socket.destroy(), END_TIMEOUT_MS);
    try {
      await this.#client.end();
    } catch {
      this.#socket.destroy();
    } finally {
      clearTimeout(timer);
    }
  }

  #lose(error: Error | undefined): void {
    if (this.#isEnding || this.lost.aborted) return;
    const what = `the session with PostgreSQL at ${this.address} ended`;
    const reason =
      error === undefined
        ? new DatabaseError(what, { hint: "Was the server restarted? See its log." })
        : databaseError(what, error);
    this.#lost.abort(reason);
    this.#socket.destroy();
  }
}

/** The column as text. Throws DatabaseError when it is absent or NULL. */
export function textColumn(row: Row, name: string): string {
  const value = row[name];
  if (value === undefined || value === null) {
    throw new DatabaseError(`the server gave no value for ${name}`);
  }
  return value;
}

export function booleanColumn(row: Row, name: string): boolean {
  const text = textColumn(row, name);
  if (text !== "t" && text !== "f") throw new DatabaseError(`no boolean in ${name}: ${text}`);
  return text === "t";
}

/** An integer that a number holds exactly. */
export function integerColumn(row: Row, name: string): number {
  const text = textColumn(row, name);
  const value = Number(text);
  if (!/^-?\d+$/.test(text) || !Number.isSafeInteger(value)) {
    throw new DatabaseError(`no integer in ${name}: ${text}`);
  }
  return value;
}
