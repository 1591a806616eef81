import { UsageError } from "../errors.ts";
import type { Command } from "./command.ts";

/** `walnut backup-fetch` */
export const backupFetch: Command<undefined> = {
  name: "backup-fetch",
  usage: "backup-fetch",
  summary: "Not part of this build.",
  flags: [],
  needsConfig: true,
  parse: () => undefined,
  async run() {
    throw new UsageError("backup-fetch is not part of this build");
  },
};
