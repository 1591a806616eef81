import type { Socket } from "node:net";
import { closeSync, openSync } from "node:fs";
import { dirname, join, basename } from "node:path";
import { type ErrorCode, OperationError } from "../errors.ts";
import { type ArchiverName, type CallerName, isArchiverName, isCallerName } from "./caller-name.ts";
import type { LineProtocol } from "./line-server.ts";

/** What wal-push says to the drainer: one line of JSON. */
export type DrainRequest =
  | {
      readonly kind: "push";
      readonly name: string;
      /** Of the settings that the caller has. */
      readonly settings: string;
      /** Whose shell called, if that says so. */
      readonly archiver?: ArchiverName;
      /** Who calls, as ready-call.ts names it. */
      readonly caller?: CallerName;
    }
  | { readonly kind: "status" };

/**
 * What the drainer says, one line of JSON each; "taken" is followed by another answer, and said
 * again every second until then.
 */
export type DrainAnswer =
  | { readonly kind: "taken" }
  | { readonly kind: "stored"; readonly outcome: string }
  | {
      readonly kind: "failed";
      readonly code: ErrorCode;
      readonly message: string;
      readonly hint?: string;
    }
  /** The caller must do it by itself. */
  | { readonly kind: "declined"; readonly reason: string }
  | { readonly kind: "status"; readonly status: DrainStatus };

export interface DrainStatus {
  readonly ready: number;
  readonly underWay: number;
  /** Acknowledged, and not yet marked as done. */
  readonly ahead: number;
  readonly storedCount: number;
  readonly failedCount: number;
  /** Of zstd, where it is chosen by need. */
  readonly level?: number;
  readonly lastError?: string;
}

/** A line longer than this is of no drainer. */
const LINE_BYTES_MAX = 64 * 1024;

/** sockaddr_un holds 108 bytes. */
const SOCKET_PATH_BYTES_MAX = 100;

/** What the drainer could not do, as it told us. */
export class DrainError extends OperationError {
  readonly code: ErrorCode;

  constructor({ code, message, hint }: Extract<DrainAnswer, { kind: "failed" }>) {
    super(message, hint === undefined ? {} : { hint });
    this.code = code;
  }
}

export function formatLine(value: object): string {
  return `${JSON.stringify(value)}\n`;
}

/** Undefined for what is no request. */
function parseRequest(line: string): DrainRequest | undefined {
  const fields = parseFields(line);
  const kind = fields.get("kind");
  if (kind === "status") return { kind };
  const name = fields.get("name");
  const settings = fields.get("settings");
  const archiver = fields.get("archiver");
  const caller = fields.get("caller");
  if (kind !== "push" || typeof name !== "string" || typeof settings !== "string") return undefined;
  return {
    kind,
    name,
    settings,
    ...(isArchiverName(archiver) ? { archiver } : {}),
    ...(isCallerName(caller) ? { caller } : {}),
  };
}

/** What the drainer's socket speaks. */
export function drainLines(
  handle: LineProtocol<DrainRequest, DrainAnswer>["handle"],
): LineProtocol<DrainRequest, DrainAnswer> {
  return {
    parse: parseRequest,
    unknown: { kind: "declined", reason: "unknown request" },
    handle,
    isInterim: ({ kind }) => kind === "taken",
  };
}

/** Undefined for what is no answer. */
export function parseAnswer(line: string): DrainAnswer | undefined {
  const fields = parseFields(line);
  const kind = fields.get("kind");
  if (kind === "taken") return { kind };
  const outcome = fields.get("outcome");
  if (kind === "stored" && typeof outcome === "string") return { kind, outcome };
  const reason = fields.get("reason");
  if (kind === "declined" && typeof reason === "string") return { kind, reason };
  const message = fields.get("message");
  const code = ERROR_CODES.find((one) => one === fields.get("code"));
  const hint = fields.get("hint");
  if (kind === "failed" && typeof message === "string" && code !== undefined) {
    return { kind, code, message, ...(typeof hint === "string" ? { hint } : {}) };
  }
  const status = fields.get("status");
  if (kind !== "status" || typeof status !== "object" || status === null) return undefined;
  const figures = new Map<string, unknown>(Object.entries(status));
  const figure = (member: string): number => Number(figures.get(member) ?? 0);
  const lastError = figures.get("lastError");
  return {
    kind,
    status: {
      ready: figure("ready"),
      underWay: figure("underWay"),
      ahead: figure("ahead"),
      storedCount: figure("storedCount"),
      failedCount: figure("failedCount"),
      ...(figures.has("level") ? { level: figure("level") } : {}),
      ...(typeof lastError === "string" ? { lastError } : {}),
    },
  };
}

/** What to tell who waits for a push that failed. */
export function failureAnswer(error: unknown): DrainAnswer {
  if (!(error instanceof OperationError)) {
    // The caller will meet the same bug, and can show where.
    return { kind: "declined", reason: error instanceof Error ? error.message : String(error) };
  }
  const { code, message, hint } = error;
  return { kind: "failed", code, message, ...(hint === undefined ? {} : { hint }) };
}

/** Calls `onLine` for every line that comes in; a line that never ends closes the connection. */
export function readLines(socket: Socket, onLine: (line: string) => void): void {
  let rest = "";
  socket.setEncoding("utf8");
  socket.on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) onLine(line);
    if (rest.length > LINE_BYTES_MAX) socket.destroy();
  });
}

/**
 * A path that the system takes as a socket's address, valid until it is disposed: where the real
 * one is too long, a short one through the open directory.
 */
export function socketAddress(path: string): { readonly path: string } & Disposable {
  if (Buffer.byteLength(path) <= SOCKET_PATH_BYTES_MAX) return { path, [Symbol.dispose]() {} };
  const descriptor = openSync(dirname(path), "r");
  return {
    path: join("/proc/self/fd", String(descriptor), basename(path)),
    [Symbol.dispose]: () => closeSync(descriptor),
  };
}

const ERROR_CODES = [
  "usage",
  "config",
  "format",
  "truncated",
  "not-found",
  "exists",
  "access",
  "storage",
  "deadline",
  "stopping",
  "conflict",
  "wrong-cluster",
  "wrong-key",
  "not-in-archive",
  "damaged",
  "database",
  "refused",
  "local-file",
  "interrupted",
] as const satisfies readonly ErrorCode[];

/** The members of a line of JSON; none where it is no object. */
export function parseFields(line: string): ReadonlyMap<string, unknown> {
  try {
    const value: unknown = JSON.parse(line);
    if (typeof value === "object" && value !== null) return new Map(Object.entries(value));
  } catch {
    // No JSON: nothing that we know.
  }
  return new Map();
}
