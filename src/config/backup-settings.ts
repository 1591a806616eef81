import { defaulted, setting } from "./setting.ts";
import { boolean, choice, integer, json, secret, text } from "./value-types.ts";

/** What backup-push makes of a cluster. */
export const backup = {
  deltaMaxSteps: defaulted(
    "DELTA_MAX_STEPS",
    integer(0),
    "Increments after a full backup before backup-push takes a full one again; 0 = full ones only.",
    { default: "0" },
  ),
  deltaOrigin: defaulted(
    "DELTA_ORIGIN",
    choice(["LATEST", "LATEST_FULL"]),
    "What an increment is based on: the newest backup, or the full one that it is based on.",
    { default: "LATEST" },
  ),
  deltaFromName: setting(
    "DELTA_FROM_NAME",
    text,
    "Base of the next increment: a backup's name, or LATEST.",
  ),
  deltaFromUserData: setting(
    "DELTA_FROM_USER_DATA",
    json,
    "The base of the next increment is the one backup that has this user data.",
  ),
  forceWalDelta: defaulted(
    "FORCE_WAL_DELTA",
    boolean,
    "Fail rather than look at all pages where neither the server's summaries nor the WAL tell which " +
      "blocks changed.",
    { default: "false" },
  ),
  verifyPageChecksums: defaulted(
    "VERIFY_PAGE_CHECKSUMS",
    boolean,
    "Verify the checksum of every page that backup-push reads. Needs a cluster with data checksums.",
    { default: "false" },
  ),
  backupResume: defaulted(
    "BACKUP_RESUME",
    boolean,
    "Full backups note what each of their parts holds, and go on where the newest one was " +
      "interrupted: its unchanged parts are not stored again.",
    { default: "false", form: "own" },
  ),
  catchUpSecret: setting(
    "CATCHUP_SECRET",
    secret,
    "What catchup-send and catchup-receive know each other by, and encrypt with: at least 16 " +
      "characters, the same on both hosts.",
    { form: "own" },
  ),
  storeAllCorruptBlocks: defaulted(
    "STORE_ALL_CORRUPT_BLOCKS",
    boolean,
    "Name every damaged block of a file in files_metadata.json, not only the first ten.",
    { default: "false" },
  ),
} as const;
