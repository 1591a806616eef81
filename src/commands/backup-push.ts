import { UsageError } from "../errors.ts";
import type { Command } from "./command.ts";

/** `walnut backup-push` */
export const backupPush: Command<undefined> = {
  name: "backup-push",
  usage: "backup-push",
  summary: "Not part of this build.",
  flags: [],
  needsConfig: true,
  parse: () => undefined,
  async run() {
    throw new UsageError("backup-push is not part of this build");
  },
};
