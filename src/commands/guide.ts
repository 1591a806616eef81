import {
  checkFailedExitCode as checkFailed,
  type ExitCode,
  exitCodes as codes,
  recoveryStopExitCode as recoveryStop,
  standbyRetryExitCode as standbyRetry,
} from "./exit-codes.ts";

/** What the help of a command says beside its flags. Loads for the help only. */
export interface Guide {
  /** What stands behind the program's name, and what it does. */
  readonly examples: readonly (readonly [words: string, effect: string])[];
  /** The failures that a script or a person should tell apart. */
  readonly exits: readonly ExitCode[];
  /** The settings that matter most for it, by the names of the documentation. */
  readonly settings: readonly string[];
}

/** Commands for one purpose. */
export interface GuideGroup {
  readonly title: string;
  readonly guides: Readonly<Record<string, Guide>>;
}

/** Every command once: who needs a database back comes first. */
export const guideGroups: readonly GuideGroup[] = [
  {
    title: "Restore",
    guides: {
      "backup-list": {
        examples: [
          ["backup-list --pretty --detail", "a table for people"],
          ["backup-list --json", "for scripts"],
        ],
        exits: [],
        settings: [],
      },
      "backup-fetch": {
        examples: [
          ["backup-fetch /srv/restored LATEST", "the newest backup into a new directory"],
          [
            "backup-fetch /srv/restored LATEST --tablespace-mapping /ts/old=/ts/new",
            "beside the original, on its machine",
          ],
          ["backup-fetch --delta /var/lib/postgresql/16/main LATEST", "over a stopped server"],
        ],
        exits: [codes["not-found"], codes.damaged, codes.refused, codes["local-file"]],
        settings: ["WALNUT_DOWNLOAD_CONCURRENCY", "WALNUT_TAR_DISABLE_FSYNC"],
      },
      find: {
        examples: [
          [
            "find --relation shop.public.orders --to /srv/restored",
            "before the table was dropped, with the commands that restore to there",
          ],
          ['find --time "2026-11-21T14:03:00Z"', "the first commit from then on"],
        ],
        exits: [codes["not-found"]],
        settings: [],
      },
      timeline: {
        examples: [
          ["timeline", "to when a restore can go"],
          ["timeline --html page.html", "the same as a picture"],
        ],
        exits: [],
        settings: [],
      },
      "wal-fetch": {
        examples: [
          ["wal-fetch 000000010000000000000042 /tmp/segment", "one segment, to look at it"],
        ],
        exits: [codes["not-in-archive"], standbyRetry, recoveryStop],
        settings: [
          "WALNUT_WAL_TIMEOUT",
          "WALNUT_DOWNLOAD_CONCURRENCY",
          "WALNUT_PREFETCH_MAX",
          "WALNUT_FETCH_PARTIAL",
          "WALNUT_FETCH_END_AT_HOLE",
        ],
      },
    },
  },
  {
    title: "Set up",
    guides: {
      config: {
        examples: [
          ["config", "every value in effect, and where it comes from"],
          ["config check", "try the store: write, read, list, delete"],
        ],
        exits: [codes.config, codes.access, codes.storage],
        settings: [],
      },
      setup: {
        examples: [
          ['setup "$PGDATA"', "lines for postgresql.conf"],
          ['setup "$PGDATA" --systemd', "a unit for the daemon"],
        ],
        exits: [],
        settings: ["WALNUT_SPOOL_DIR", "WALNUT_PREFETCH_DIR"],
      },
      flags: { examples: [["flags", "all settings with their defaults"]], exits: [], settings: [] },
    },
  },
  {
    title: "Back up",
    guides: {
      "backup-push": {
        examples: [
          ['backup-push "$PGDATA"', "full, or an increment where WALNUT_DELTA_MAX_STEPS says so"],
          ['backup-push "$PGDATA" --full --verify', "full, with the checksum of every page"],
          ["backup-push --remote", "over the replication protocol, from another host"],
        ],
        exits: [
          codes["corrupt-pages"],
          codes.conflict,
          codes["wrong-cluster"],
          codes.database,
          codes.refused,
        ],
        settings: [
          "WALNUT_DELTA_MAX_STEPS",
          "WALNUT_COMPRESSION_METHOD",
          "WALNUT_ARCHIVE_CHECK_TIMEOUT",
          "WALNUT_STOP_BACKUP_TIMEOUT",
          "WALNUT_DISK_RATE_LIMIT",
          "WALNUT_NETWORK_RATE_LIMIT",
        ],
      },
      "backup-merge": {
        examples: [
          ["backup-merge LATEST --dry-run", "what it would fetch, and the room that it needs"],
          ["backup-merge LATEST", "the newest increment becomes a full backup"],
        ],
        exits: [codes["not-found"], codes.damaged, codes.refused],
        settings: ["WALNUT_CACHE_DIR"],
      },
      "backup-mark": {
        examples: [
          ["backup-mark base_0000000100000000000000A1", "keep it for ever"],
          ["backup-mark --impermanent base_0000000100000000000000A1", "no longer"],
        ],
        exits: [codes["not-found"], codes.refused],
        settings: [],
      },
    },
  },
  {
    title: "Archive WAL",
    guides: {
      "wal-push": {
        examples: [
          ["wal-push pg_wal/000000010000000000000042", "one segment, as PostgreSQL calls it"],
        ],
        exits: [
          codes.conflict,
          codes["wrong-cluster"],
          codes.refused,
          codes.deadline,
          codes.access,
          codes.storage,
        ],
        settings: [
          "WALNUT_WAL_TIMEOUT",
          "WALNUT_COMPRESSION_METHOD",
          "TOTAL_BG_UPLOADED_LIMIT",
          "WALNUT_ARCHIVE_QUEUE_POLICY",
        ],
      },
      "wal-receive": {
        examples: [
          ["wal-receive", "until it is stopped"],
          ["wal-receive --synchronous", "commits can wait for the store"],
        ],
        exits: [codes.database, codes.conflict, codes["wrong-cluster"], codes.refused],
        settings: [
          "WALNUT_SLOTNAME",
          "WALNUT_RECEIVE_PARTIAL_INTERVAL",
          "WALNUT_RECEIVE_PARTIAL_BYTES",
        ],
      },
      daemon: {
        examples: [["daemon /run/walnut/walnut.sock", "serve the cluster of PGDATA"]],
        exits: [codes.config, codes.refused],
        settings: ["PGDATA", "WALNUT_DAEMON_WAL_UPLOAD_TIMEOUT"],
      },
      client: {
        examples: [
          ["client /run/walnut/walnut.sock wal-push 000000010000000000000042", "one segment"],
        ],
        exits: [codes["not-in-archive"], standbyRetry, recoveryStop],
        settings: [],
      },
    },
  },
  {
    title: "Know what you have",
    guides: {
      info: {
        examples: [
          ["info", "everything on one screen"],
          ["info --json", "for monitoring"],
        ],
        exits: [],
        settings: [],
      },
      verify: {
        examples: [
          ["verify", "a sample: daily, from cron"],
          ["verify --budget 30m", "as much as half an hour allows"],
          ["verify --full", "everything"],
        ],
        exits: [codes.unsound, codes.refused],
        settings: [],
      },
      "wal-show": {
        examples: [["wal-show", "a line for each timeline"]],
        exits: [],
        settings: [],
      },
      "wal-verify": {
        examples: [["wal-verify integrity timeline", "both checks"]],
        exits: [codes.unsound],
        settings: ["WALNUT_INTEGRITY_MAX_DELAYED_WALS", "WALNUT_WAL_VERIFY_EXIT_ZERO"],
      },
    },
  },
  {
    title: "Keep and remove",
    guides: {
      expire: {
        examples: [
          ["expire", "what would go, and why the rest stays"],
          ["expire --confirm", "daily, after the backup"],
        ],
        exits: [codes.storage, codes.refused],
        settings: [
          "WALNUT_RETAIN_DAYS",
          "WALNUT_RETAIN_FULLS",
          "WALNUT_RETAIN_WEEKLY",
          "WALNUT_RETAIN_MONTHLY",
          "WALNUT_RETAIN_MINIMUM",
          "WALNUT_DELETE_RATE",
        ],
      },
      delete: {
        examples: [
          ["delete retain FULL 5", "what would go if five full backups stayed"],
          ["delete retain FULL 5 --confirm", "do it"],
          ["delete before FIND_FULL 2026-11-01T00:00:00Z --confirm", "what is older"],
        ],
        exits: [codes["not-found"], codes.storage, codes.refused],
        settings: ["WALNUT_ABANDONED_AFTER", "WALNUT_DELETE_RATE"],
      },
      copy: {
        examples: [
          [
            "copy --from a.json --to b.json --backup-name LATEST",
            "the newest backup, with its WAL",
          ],
        ],
        exits: [codes.conflict, codes["wrong-cluster"], codes.damaged, codes.refused],
        settings: [],
      },
      rekey: {
        examples: [
          ["rekey", "what has another key"],
          ["rekey --confirm", "encrypt it anew"],
        ],
        exits: [codes["wrong-key"], codes.damaged],
        settings: ["WALNUT_LIBSODIUM_OLD_KEY_PATHS", "WALNUT_PGP_OLD_KEY_PATHS"],
      },
      st: {
        examples: [
          ["st ls -r wal_005", "all objects below a folder"],
          ["st get wal_005/000000010000000000000042.zst segment", "decompressed, decrypted"],
          ["st check write", "whether the store can be written to"],
          ["st diff", "whether the mirrors have everything"],
        ],
        exits: [checkFailed, codes["not-found"], codes.exists],
        settings: [],
      },
    },
  },
  {
    title: "Standbys and failover",
    guides: {
      backfill: {
        examples: [
          ["backfill --dry-run", "what the archive lacks"],
          ["backfill", "bring it: after every promotion"],
        ],
        exits: [codes.conflict, codes["wrong-cluster"]],
        settings: ["PGDATA"],
      },
      "take-over": {
        examples: [['take-over "$PGDATA"', "once, after the move; the old server is gone"]],
        exits: [codes["wrong-cluster"], codes.refused],
        settings: ["WALNUT_SERVER_NAME"],
      },
      "wal-restore": {
        examples: [["wal-restore /srv/old-primary /srv/new-primary", "before pg_rewind"]],
        exits: [codes["not-in-archive"], codes.damaged],
        settings: [],
      },
      "catchup-push": {
        examples: [['catchup-push "$PGDATA" --from-lsn 16/B374D848', "on the primary"]],
        exits: [codes.database, codes.refused],
        settings: [],
      },
      "catchup-fetch": {
        examples: [['catchup-fetch "$PGDATA" LATEST', "on the stopped standby"]],
        exits: [codes["wrong-cluster"], codes.damaged, codes.refused],
        settings: [],
      },
      "catchup-list": {
        examples: [["catchup-list --pretty --detail", "a table for people"]],
        exits: [],
        settings: [],
      },
      "catchup-send": {
        examples: [['catchup-send "$PGDATA" standby.example.org:7001', "on the primary"]],
        exits: [codes["wrong-cluster"], codes.refused],
        settings: ["WALNUT_CATCHUP_SECRET"],
      },
      "catchup-receive": {
        examples: [
          ['catchup-receive "$PGDATA" 7001', "on the stopped standby; through ssh"],
          ['catchup-receive "$PGDATA" 7001 --listen 10.0.0.7', "reachable in its network"],
        ],
        exits: [codes["wrong-cluster"], codes.refused],
        settings: ["WALNUT_CATCHUP_SECRET"],
      },
    },
  },
  {
    title: "Started by walnut itself",
    guides: {
      "wal-drain": {
        examples: [['wal-drain --status "$PGDATA"', "what the running one does"]],
        exits: [],
        settings: ["TOTAL_BG_UPLOADED_LIMIT"],
      },
      "wal-prefetch": {
        examples: [['wal-prefetch --status "$PGDATA"', "what the running one does"]],
        exits: [],
        settings: ["WALNUT_PREFETCH_MAX", "WALNUT_DOWNLOAD_CONCURRENCY"],
      },
      "wal-index": {
        examples: [["wal-index pg_wal/000000010000000000000042", "the group of this segment"]],
        exits: [],
        settings: ["WALNUT_COMMIT_INDEX"],
      },
      "gap-backup": {
        examples: [['gap-backup --status "$PGDATA"', "what it waits for, and its last error"]],
        exits: [],
        settings: ["WALNUT_GAP_BACKUP", "WALNUT_GAP_BACKUP_COMMAND", "WALNUT_ARCHIVE_QUEUE_POLICY"],
      },
      "wal-delta": {
        examples: [['wal-delta "$PGDATA"', "the groups that are complete"]],
        exits: [],
        settings: ["WALNUT_USE_WAL_DELTA"],
      },
    },
  },
  {
    title: "About walnut",
    guides: {
      completion: {
        examples: [["completion bash > /etc/bash_completion.d/walnut", "for all users"]],
        exits: [],
        settings: [],
      },
      help: {
        examples: [
          ["help backup-fetch", "one command"],
          ["help exit-codes", "what each code means"],
        ],
        exits: [],
        settings: [],
      },
      version: { examples: [["version", "one line"]], exits: [], settings: [] },
    },
  },
];

/** What the guide says of a command; undefined for none. */
export function commandGuide(name: string): Guide | undefined {
  return guideGroups.flatMap(({ guides }) =>
    Object.hasOwn(guides, name) ? [guides[name]] : [],
  )[0];
}
