import { resolve } from "node:path";
import { catchUpStorage } from "../backup/catch-up-storage.ts";
import { pushBackup } from "../backup/push.ts";
import { FormatError, UsageError } from "../errors.ts";
import { type Lsn, lsn, parseLsn } from "../postgres/lsn.ts";
import { inBackupStorage } from "./backup-storage.ts";
import { pushSettings, sayWritten } from "./backup-push.ts";
import type { Command } from "./command.ts";
import { requirePositionals } from "./words.ts";

interface CatchUpPushArguments {
  /** As the user wrote it. */
  readonly dataDirectory: string;
  readonly fromLsn: Lsn;
}

/** `walnut catchup-push` */
export const catchUpPush: Command<CatchUpPushArguments> = {
  name: "catchup-push",
  usage: "catchup-push <data-directory> --from-lsn <lsn>",
  summary: "Store what a lagging standby lacks.",
  details:
    "Run it on the primary, or on a standby that is up to date. It stores the pages that changed from " +
    "the position on, and all files that have no pages; catchup-fetch puts them over the stopped " +
    "standby's directory. The position is the standby's last checkpoint: pg_control_checkpoint(), " +
    "checkpoint_lsn, before it is stopped. postgresql.conf, postgresql.auto.conf and pg_hba.conf stay out.",
  flags: [
    {
      name: "from-lsn",
      value: "<lsn>",
      text: "As a decimal number, as WAL-G takes it, or as 16/B374D848. Without it all pages go out.",
    },
  ],
  needsConfig: true,

  parse(words) {
    const [dataDirectory = ""] = requirePositionals(words, ["the data directory"]);
    return { dataDirectory, fromLsn: parseFromLsn(words.value("from-lsn")) };
  },

  async run({ dataDirectory, fromLsn }, context) {
    const { config, log, clock, signal, progress } = context;
    const startMs = clock.monotonicMs();
    const onProgress = (state: { readonly doneBytes: number; readonly totalBytes?: number }) =>
      progress.update({ activity: "reading what changed", ...state });
    const plain = {
      isPermanent: false,
      userData: undefined,
      hasFilesMetadata: true,
      wish: { type: "full" },
      isPageVerified: false,
      isEveryCorruptBlockListed: false,
    } as const;
    const settings = {
      ...pushSettings(plain, config),
      dataDirectory: resolve(context.workingDirectory, dataDirectory),
      hasDatabaseNames: false,
      catchUpFrom: fromLsn,
    };
    try {
      await inBackupStorage(context, async (whole) => {
        const storage = catchUpStorage(whole);
        const pushed = await pushBackup(settings, { storage, log, clock, onProgress, signal });
        const elapsedMs = clock.monotonicMs() - startMs;
        sayWritten(log, pushed, { storage: storage.name, elapsedMs });
      });
    } finally {
      progress.end();
    }
  },
};

function parseFromLsn(text: string | undefined): Lsn {
  if (text === undefined || text === "") return lsn(0n);
  try {
    if (!/^[0-9]{1,20}$/.test(text)) return parseLsn(text);
    const value = BigInt(text);
    if (value === BigInt.asUintN(64, value)) return lsn(value);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
  }
  throw new UsageError(`--from-lsn ${text} is no position in the WAL`, {
    hint: "Give a decimal number, or two hexadecimal ones as 16/B374D848.",
  });
}
