import { LATEST } from "../backup/catalogue.ts";
import { CHANGE_WAYS, type ChangeWay } from "../backup/change-sources.ts";
import type { NamedBase } from "../backup/increment-choice.ts";
import type { IncrementRequest } from "../backup/push-increment.ts";
import type { IncrementConfig } from "../config/config.ts";
import { UsageError } from "../errors.ts";
import type { JsonValue } from "../layout/json-value.ts";
import type { Words } from "./command.ts";
import { parseUserData } from "./user-data.ts";

/** What the command line says about full backups and increments. */
export interface IncrementWish {
  readonly type?: "full" | "diff" | "incr" | undefined;
  /** The flag that asks for a full backup, if there is one. */
  readonly fullFlag?: string | undefined;
  readonly fromName?: string | undefined;
  readonly fromUserData?: JsonValue | undefined;
  /** The only way in which changed blocks may be found. */
  readonly way?: ChangeWay | undefined;
}

const TYPES = ["full", "diff", "incr"] as const;

/** Throws UsageError for words that contradict each other. */
export function parseWish(words: Words): IncrementWish {
  const type = parseType(words.value("type"));
  const fromName = words.value("delta-from-name") || undefined;
  const fromUserData = parseUserData(words.value("delta-from-user-data"));
  if (fromName !== undefined && fromUserData !== undefined) throw bothGiven();
  const fullFlag = ["full", "copy-composer"].find((flag) => words.has(flag));
  if (words.has("full") && type !== undefined && type !== "full") {
    throw new UsageError(`--full and --type ${type} contradict each other`);
  }
  if (words.has("without-files-metadata") && (fromName ?? fromUserData) !== undefined) {
    throw new UsageError("--without-files-metadata and a base contradict each other", {
      hint: "WAL-G could not read an increment without files_metadata.json.",
    });
  }
  return { type, fullFlag, fromName, fromUserData, way: parseWay(words.value("changes")) };
}

function parseWay(text: string | undefined): ChangeWay | undefined {
  if (text === undefined || text === "") return undefined;
  const way = CHANGE_WAYS.find((one) => one === text);
  if (way !== undefined) return way;
  throw new UsageError(`--changes ${text}: changed blocks can't be found in this way`, {
    hint: `It is one of ${CHANGE_WAYS.join(", ")}; without the flag the best that can be believed.`,
  });
}

function parseType(text: string | undefined): IncrementWish["type"] {
  if (text === undefined || text === "") return undefined;
  const type = TYPES.find((one) => one === text);
  if (type !== undefined) return type;
  throw new UsageError(`--type ${text}: there is no such type of backup`, {
    hint: `A type is one of ${TYPES.join(", ")}.`,
  });
}

function bothGiven(): UsageError {
  return new UsageError("a base is chosen by its name or by user data, not by both");
}

/** The request from command line and settings; throws UsageError where both name a base. */
export function increments(wish: IncrementWish, config: IncrementConfig): IncrementRequest {
  const from = namedBase(wish, config);
  const origin = wish.type === undefined ? config.origin : ORIGINS[wish.type];
  const isAsked = wish.type === "incr" || wish.type === "diff";
  const maxSteps = isAsked && config.maxSteps === 0 ? Number.POSITIVE_INFINITY : config.maxSteps;
  const flag = wish.fullFlag ?? (wish.type === "full" ? "type full" : undefined);
  const fullReason = flag === undefined ? undefined : `--${flag} was given`;
  const allowed = CHANGE_WAYS.filter((way) => way !== "page-scan" || config.isPageScanAllowed);
  const ways = wish.way === undefined ? allowed : [wish.way];
  return { maxSteps, origin, from, fullReason, ways };
}

const ORIGINS = { full: "latest", incr: "latest", diff: "latest-full" } as const;

function namedBase(wish: IncrementWish, config: IncrementConfig): NamedBase | undefined {
  const isGiven = wish.fromName !== undefined || wish.fromUserData !== undefined;
  const name = wish.fromName ?? (isGiven ? undefined : config.fromName || undefined);
  const value = wish.fromUserData ?? (isGiven ? undefined : parseUserData(config.fromUserData));
  if (name !== undefined && value !== undefined) throw bothGiven();
  if (value !== undefined) return { kind: "user-data", value };
  return name === undefined || name === LATEST ? undefined : { kind: "name", name };
}
