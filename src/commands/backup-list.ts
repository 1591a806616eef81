import { UsageError } from "../errors.ts";
import type { Command } from "./command.ts";

/** `walnut backup-list` */
export const backupList: Command<undefined> = {
  name: "backup-list",
  usage: "backup-list",
  summary: "Not part of this build.",
  flags: [],
  needsConfig: true,
  parse: () => undefined,
  async run() {
    throw new UsageError("backup-list is not part of this build");
  },
};
