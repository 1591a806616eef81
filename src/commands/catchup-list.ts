import { catchUpStorage } from "../backup/catch-up-storage.ts";
import { backupList } from "./backup-list.ts";

/** `walnut catchup-list`: backup-list of what catchup-push stored. */
export const catchUpList: typeof backupList = {
  ...backupList,
  name: "catchup-list",
  usage: "catchup-list [--detail] [--pretty] [--json]",
  summary: "List what catchup-push stored, oldest first.",

  async run(args, context) {
    const openStorage: typeof context.openStorage = async (use) =>
      catchUpStorage(await context.openStorage(use));
    await backupList.run(args, { ...context, openStorage });
  },
};
