import { backupChoice } from "../backup/catalogue.ts";
import { UsageError } from "../errors.ts";
import type { DeleteRequest, FullModifier } from "../retention/delete-selection.ts";
import type { Flag, Words } from "./command.ts";
import { parseUserData } from "./user-data.ts";

/** WAL-G's flags of `delete` and of its forms. */
export const DELETE_FLAGS: readonly Flag[] = [
  { name: "confirm", text: "Do it. Without this flag it is only shown what would be removed." },
  {
    name: "use-sentinel-time",
    text: "Order backups by the start that they recorded, not by timeline and WAL position.",
  },
  {
    name: "after",
    short: "a",
    value: "<name or time>",
    text: "For retain: remove nothing that was taken from this backup or time on.",
  },
  {
    name: "target-user-data",
    value: "<json>",
    text: "For target: the one backup with this user data.",
  },
  {
    name: "without-backup-check",
    text: "For garbage: go on even if there is no backup that is not permanent.",
  },
];

const FORMS = "retain, before, target, everything or garbage";

/** Reads what follows `delete`. Throws UsageError. */
export function parseDeleteRequest(words: Words): DeleteRequest {
  const [form = "", ...rest] = words.positionals;
  switch (form) {
    case "retain":
      return parseRetain(rest, words.value("after"));
    case "before":
      return parseBefore(rest);
    case "everything":
      return parseEverything(rest);
    case "target":
      return parseTarget(rest, words.value("target-user-data"));
    case "garbage":
      return parseGarbage(rest, words.has("without-backup-check"));
    default:
      throw new UsageError(
        form === "" ? "what to delete is missing" : `delete has no form ${form}`,
        { hint: `Write delete ${FORMS}; \`walnut help delete\` explains them.` },
      );
  }
}

function parseRetain(rest: readonly string[], after: string | undefined): DeleteRequest {
  const { modifier, words } = takeModifier(rest);
  const [text] = only(words, "retain [FULL|FIND_FULL] <count>");
  const count = /^\+?\d+$/.test(text ?? "") ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(count) || count < 1) {
    throw new UsageError(`retain needs a number of backups of at least 1, not ${text}`);
  }
  return { kind: "retain", count, modifier, after };
}

function parseBefore(rest: readonly string[]): DeleteRequest {
  const { modifier, words } = takeModifier(rest);
  if (modifier === "FULL") {
    throw new UsageError("before has no modifier FULL", { hint: "Write before FIND_FULL." });
  }
  const [target = ""] = only(words, "before [FIND_FULL] <name or time>");
  return { kind: "before", target, modifier };
}

function parseEverything(rest: readonly string[]): DeleteRequest {
  const [word, ...surplus] = rest;
  if (surplus.length > 0 || (word !== undefined && word !== "FORCE")) {
    throw new UsageError(`surplus argument ${JSON.stringify(surplus[0] ?? word)}`, {
      hint: "Write everything, or everything FORCE.",
    });
  }
  return { kind: "everything", isForced: word === "FORCE" };
}

function parseTarget(rest: readonly string[], userData: string | undefined): DeleteRequest {
  const { modifier, words } = takeModifier(rest);
  if (modifier === "FULL") {
    throw new UsageError("target has no modifier FULL", { hint: "Write target FIND_FULL." });
  }
  const isFamily = modifier === "FIND_FULL";
  const value = parseUserData(userData);
  if (value !== undefined) {
    if (words.length > 0) throw new UsageError("target takes a name or user data, not both");
    return { kind: "target", choice: { kind: "user-data", value }, isFamily };
  }
  const [name = ""] = only(words, "target [FIND_FULL] <name>");
  return { kind: "target", choice: backupChoice(name), isFamily };
}

function parseGarbage(rest: readonly string[], isBackupCheckLeftOut: boolean): DeleteRequest {
  const [word, ...surplus] = rest;
  const scopes = new Map([
    [undefined, "all"],
    ["ARCHIVES", "archives"],
    ["BACKUPS", "backups"],
  ] as const);
  const scope = [...scopes].find(([name]) => name === word)?.[1];
  if (scope === undefined || surplus.length > 0) {
    throw new UsageError(`surplus argument ${JSON.stringify(surplus[0] ?? word)}`, {
      hint: "Write garbage, garbage ARCHIVES or garbage BACKUPS.",
    });
  }
  return { kind: "garbage", scope, isBackupCheckLeftOut };
}

function takeModifier(rest: readonly string[]): {
  readonly modifier: FullModifier | undefined;
  readonly words: readonly string[];
} {
  const [first, ...others] = rest;
  return first === "FULL" || first === "FIND_FULL"
    ? { modifier: first, words: others }
    : { modifier: undefined, words: rest };
}

function only(words: readonly string[], usage: string): readonly string[] {
  const [first, second] = words;
  if (first === undefined || first === "") {
    throw new UsageError("an argument is missing", { hint: `Write delete ${usage}.` });
  }
  if (second === undefined) return words;
  throw new UsageError(`surplus argument ${JSON.stringify(second)}`, {
    hint: `Write delete ${usage}.`,
  });
}
