import { type CallerName, isCallerName } from "./caller-name.ts";
import { parseFields } from "./drain-protocol.ts";
import type { LineProtocol } from "./line-server.ts";

/** What wal-fetch says to the prefetcher: one line of JSON. */
export type PrefetchRequest =
  | {
      readonly kind: "take";
      /** Of a segment. */
      readonly name: string;
      /** Of the settings that the caller has. */
      readonly settings: string;
      /** As setup's line names the recovery, if it was that one. */
      readonly recovery?: string;
      /** Who calls, as ready-call.ts names it. */
      readonly caller?: CallerName;
      /** Wait for what is under way, and begin nothing. */
      readonly isAgain?: boolean;
    }
  | { readonly kind: "status" };

/** What the prefetcher says; "taken" is followed by another answer. */
export type PrefetchAnswer =
  | { readonly kind: "taken" }
  /** The segment is whole and checked: the caller renames it. */
  | { readonly kind: "ready"; readonly path: string }
  /** The caller must fetch by itself: this says nothing about the archive. */
  | { readonly kind: "declined"; readonly reason: string }
  | { readonly kind: "status"; readonly status: PrefetchStatus };

export interface PrefetchStatus {
  /** The segment that recovery asks for next; "" behind the last one that there can be. */
  readonly next: string;
  readonly ready: number;
  readonly underWay: number;
  /** How far ahead it wants to be, in segments. */
  readonly reach: number;
  readonly concurrency: number;
  readonly fetchedCount: number;
  readonly takenCount: number;
  readonly failedCount: number;
  /** Smoothed; 0 while unknown. */
  readonly fetchMs: number;
  readonly replayMs: number;
  readonly lastError?: string;
}

/** What the prefetcher's socket speaks. */
export function prefetchLines(
  handle: LineProtocol<PrefetchRequest, PrefetchAnswer>["handle"],
): LineProtocol<PrefetchRequest, PrefetchAnswer> {
  return { parse: parseRequest, unknown: { kind: "declined", reason: "unknown request" }, handle };
}

/** Undefined for what is no answer. */
export function parsePrefetchAnswer(line: string): PrefetchAnswer | undefined {
  const fields = parseFields(line);
  const kind = fields.get("kind");
  const path = fields.get("path");
  const reason = fields.get("reason");
  if (kind === "taken") return { kind };
  if (kind === "ready" && typeof path === "string") return { kind, path };
  if (kind === "declined" && typeof reason === "string") return { kind, reason };
  const status = fields.get("status");
  if (kind !== "status" || typeof status !== "object" || status === null) return undefined;
  return { kind, status: parseStatus(new Map<string, unknown>(Object.entries(status))) };
}

function parseRequest(line: string): PrefetchRequest | undefined {
  const fields = parseFields(line);
  const kind = fields.get("kind");
  if (kind === "status") return { kind };
  const name = fields.get("name");
  const settings = fields.get("settings");
  const recovery = fields.get("recovery");
  const caller = fields.get("caller");
  if (kind !== "take" || typeof name !== "string" || typeof settings !== "string") return undefined;
  return {
    kind,
    name,
    settings,
    ...(typeof recovery === "string" ? { recovery } : {}),
    ...(isCallerName(caller) ? { caller } : {}),
    ...(fields.get("isAgain") === true ? { isAgain: true } : {}),
  };
}

function parseStatus(members: ReadonlyMap<string, unknown>): PrefetchStatus {
  const figure = (member: string): number => Number(members.get(member) ?? 0);
  const lastError = members.get("lastError");
  const next = members.get("next");
  return {
    next: typeof next === "string" ? next : "",
    ready: figure("ready"),
    underWay: figure("underWay"),
    reach: figure("reach"),
    concurrency: figure("concurrency"),
    fetchedCount: figure("fetchedCount"),
    takenCount: figure("takenCount"),
    failedCount: figure("failedCount"),
    fetchMs: figure("fetchMs"),
    replayMs: figure("replayMs"),
    ...(typeof lastError === "string" ? { lastError } : {}),
  };
}
