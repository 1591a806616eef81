import { backupChoice, findBackup } from "../backup/catalogue.ts";
import { markBackup } from "../retention/mark.ts";
import type { Command } from "./command.ts";
import { onePath } from "./words.ts";

interface MarkArguments {
  readonly name: string;
  readonly isPermanent: boolean;
}

/** `walnut backup-mark` */
export const backupMark: Command<MarkArguments> = {
  name: "backup-mark",
  usage: "backup-mark <name|LATEST> [--impermanent]",
  summary: "Keep a backup for ever, or no longer.",
  details:
    "A permanent backup, everything that it is based on, and the WAL that makes them consistent " +
    "stay whatever delete and expire are told, but for delete everything FORCE. A backup that " +
    "a permanent increment is based on can't be made impermanent.",
  flags: [{ name: "impermanent", short: "i", text: "Take the mark away." }],
  needsConfig: true,

  parse: (words) => ({
    name: onePath(words, "the backup"),
    isPermanent: !words.has("impermanent"),
  }),

  async run({ name, isPermanent }, { log, signal, openStorage }) {
    await using storage = await openStorage();
    const backup = await findBackup(storage, backupChoice(name), { signal });
    const changed = await markBackup(storage, backup, { isPermanent, signal });
    const state = isPermanent ? "permanent" : "impermanent";
    for (const one of changed) log.info(`backup is ${state} now`, { name: one });
    if (changed.length === 0) log.warning(`backup is ${state} already`, { name: backup });
  },
};
