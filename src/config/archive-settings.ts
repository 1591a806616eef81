import { defaulted, setting } from "./setting.ts";
import { boolean, bytes, choice, duration, integer, path, text } from "./value-types.ts";

/** How files are archived ahead, and what happens when they can't be. */
export const archive = {
  serverName: setting(
    "SERVER_NAME",
    text,
    "What tells this server from the others of its cluster; host name and data directory unless set. " +
      "Set it where the host name changes by itself.",
    { form: "own" },
  ),
  spoolDirectory: setting(
    "SPOOL_DIR",
    path,
    "Where walnut keeps, for each data directory, notes of what it pushed ahead and segments that it " +
      "fetched ahead; beside the data directory unless set.",
    { form: "own" },
  ),
  prefetchDirectory: setting(
    "PREFETCH_DIR",
    path,
    "Where segments that are fetched ahead of recovery are kept, for any number of data directories; " +
      "in WALNUT_SPOOL_DIR, or beside the data directory, unless set.",
  ),
  prefetchMax: defaulted(
    "PREFETCH_MAX",
    bytes(1),
    "How many bytes of segments may be fetched ahead of recovery; one segment always may.",
    { form: "own", default: "1GiB", unit: "bytes" },
  ),
  aheadLimit: defaulted(
    "TOTAL_BG_UPLOADED_LIMIT",
    integer(0),
    "Files that may be archived before PostgreSQL asks for them; 0 or 1 = none.",
    { form: "plain", default: "32" },
  ),
  readyRename: defaulted(
    "PG_READY_RENAME",
    boolean,
    "Mark files that were archived ahead as done, so that PostgreSQL does not ask for them; " +
      "TOTAL_BG_UPLOADED_LIMIT of them at most until it calls again.",
    { form: "plain", default: "false" },
  ),
  useWalDelta: defaulted(
    "USE_WAL_DELTA",
    boolean,
    "Note which blocks change while WAL is archived, so that increments need not read the others.",
    { default: "false" },
  ),
  queuePolicy: defaulted(
    "ARCHIVE_QUEUE_POLICY",
    choice(["stop", "drop"]),
    "When WAL can't be stored: stop lets pg_wal grow; drop gives segments up, which makes a gap in " +
      "the archive and ends running backups.",
    { form: "own", default: "stop" },
  ),
  queueMax: setting(
    "ARCHIVE_QUEUE_MAX",
    bytes(1),
    "With the policy drop: how much WAL may wait before segments are given up.",
    { form: "own", unit: "bytes" },
  ),
  gapBackup: defaulted(
    "GAP_BACKUP",
    boolean,
    "After segments were given up (policy drop): take a full backup by itself as soon as archiving " +
      "works again.",
    { form: "own", default: "true" },
  ),
  gapBackupCommand: setting(
    "GAP_BACKUP_COMMAND",
    text,
    "Shell command to run in place of that backup; 0 = it was taken, or will be.",
    { form: "own" },
  ),
  commitIndex: defaulted(
    "COMMIT_INDEX",
    boolean,
    "After every 16 segments, note the times of their commits for `timeline` and `find`, in a " +
      "process of its own.",
    { form: "own", default: "true" },
  ),
  daemonPushTimeout: defaulted(
    "DAEMON_WAL_UPLOAD_TIMEOUT",
    duration({ minMs: 1000 }),
    "How long one push may take that a client asks the daemon for; WALNUT_WAL_TIMEOUT counts, too.",
    { default: "60s" },
  ),
} as const;
