import { type Effect, type NameForm, type Setting, type SettingType, setting } from "./setting.ts";
import { boolean, bytes, choice, duration, integer, text } from "./value-types.ts";

/** Name, type, text, and why it has no effect. */
type Row = readonly [string, SettingType<unknown>, string, string | Effect];

function inert(form: NameForm, rows: readonly Row[]): readonly Setting[] {
  return rows.map(([name, type, about, why]) => {
    const effect: Effect = typeof why === "string" ? { kind: "none", reason: why } : why;
    return setting(name, type, about, { form, effect });
  });
}

const OFF = /^(0|f|F|false|FALSE|False)$/;

const RESTORE = "walnut has one way to restore, which writes every page once";
const RETRIES = "walnut repeats requests until their time limit, however often that is";
const PAUSES = "walnut waits as long as the store asks, else with growing pauses";
const GO_RUNTIME = "it belongs to the Go runtime";
const LATER = "it comes in a later version";
const WALE_LOG = "WALNUT_LOG_DESTINATION counts";
const IMAGE = "it belongs to a container image that starts WAL-G";

const backups = inert("prefixed", [
  ["UPLOAD_QUEUE", integer(0), "Closed parts that wait.", "walnut bounds its memory itself"],
  ["USE_REVERSE_UNPACK", boolean, "Restore the newest backup of a chain first.", RESTORE],
  ["SKIP_REDUNDANT_TARS", boolean, "Leave out parts that are overwritten anyway.", RESTORE],
  ["DOWNLOAD_FILE_RETRIES", integer(0), "Rounds without progress.", RETRIES],
  ["DIRECT_IO", boolean, "Read past the page cache.", LATER],
  ["DIRECT_IO_BLOCK_COUNT", integer(1), "Blocks of one such read.", LATER],
]);

const wal = inert("prefixed", [
  [
    "PREVENT_WAL_OVERWRITE",
    boolean,
    "Never overwrite archived WAL.",
    "walnut never overwrites archived WAL",
  ],
  [
    "UPLOAD_WAL_METADATA",
    choice(["NOMETADATA", "INDIVIDUAL", "BULK"]),
    "Store a JSON object with times beside WAL.",
    "no restore needs these objects",
  ],
  [
    "PG_WAL_SIZE",
    integer(1, 1024),
    "Size of a segment in MiB.",
    "walnut reads the size from the segments and the server",
  ],
  ["PG_WAL_PAGE_SIZE", bytes(1), "Size of a WAL page.", "walnut reads it from the segments"],
  ["PG_BLOCK_SIZE", bytes(1), "Size of a data page.", "walnut reads it from the server"],
]);

const bareNames = inert("plain", [
  ["PGBACKREST_STANZA", text, "Stanza of a pgBackRest repository.", LATER],
  ["HTTP_LISTEN", text, "Address for metrics over HTTP.", LATER],
  ["HTTP_EXPOSE_PPROF", boolean, "Profiles over HTTP.", GO_RUNTIME],
  ["HTTP_EXPOSE_EXPVAR", boolean, "Variables over HTTP.", GO_RUNTIME],
  ["PROFILE_SAMPLING_RATIO", text, "Share of runs that are profiled.", GO_RUNTIME],
  ["PROFILE_MODE", text, "What is profiled.", GO_RUNTIME],
  ["PROFILE_PATH", text, "Where profiles are stored.", GO_RUNTIME],
]);

const s3 = inert("any", [
  ["S3_SKIP_VALIDATION", boolean, "Leave out the check of the bucket.", "there is none"],
  [
    "S3_USE_YC_SESSION_TOKEN",
    boolean,
    "Credentials from Yandex Cloud's metadata service.",
    { kind: "refused", reason: "walnut can't ask Yandex Cloud for credentials", harmlessText: OFF },
  ],
  [
    "S3_ENDPOINT_SOURCE",
    text,
    "URL that answers with the endpoint.",
    { kind: "refused", reason: "only AWS_ENDPOINT names an endpoint" },
  ],
  ["S3_ENDPOINT_PORT", integer(1, 65_535), "Port of it.", "see S3_ENDPOINT_SOURCE"],
  ["S3_ENDPOINT_PROTOCOL", text, "Protocol of it.", "see S3_ENDPOINT_SOURCE"],
  ["S3_LOG_LEVEL", text, "Log of the SDK.", "WALNUT_LOG_LEVEL counts"],
  ["S3_RANGE_BATCH_ENABLED", boolean, "Read in ranges.", "downloads resume anyway"],
  ["S3_RANGE_MAX_RETRIES", integer(0), "How often a range is repeated.", RETRIES],
  ["S3_MAX_RETRIES", integer(0), "How often a request is repeated.", RETRIES],
  [
    "S3_MIN_THROTTLING_RETRY_DELAY",
    duration({ minMs: 0, plainUnit: "ms" }),
    "Shortest pause after a throttled request.",
    PAUSES,
  ],
  [
    "S3_MAX_THROTTLING_RETRY_DELAY",
    duration({ minMs: 0, plainUnit: "ms" }),
    "Longest such pause.",
    PAUSES,
  ],
  ["S3_DISABLE_100_CONTINUE", boolean, "Send bodies at once.", "walnut does so"],
  [
    "S3_ENABLE_VERSIONING",
    text,
    "Whether old versions of objects are looked at.",
    "walnut looks at the newest version only",
  ],
]);

const others = inert("prefixed", [
  ["STATSD_ADDRESS", text, "Where metrics are sent.", LATER],
  ["STATSD_EXTRA_TAGS", text, "Tags of the metrics.", LATER],
  ["SERIALIZER_TYPE", text, "How JSON is written.", "WAL-G ignores it, too"],
  ["STREAM_CREATE_COMMAND", text, "Command of other databases.", "not for PostgreSQL"],
  ["STREAM_RESTORE_COMMAND", text, "Command of other databases.", "not for PostgreSQL"],
]);

/** Of the runtime, of systemd, and of WAL-E and the containers around it. */
const neighbours = inert("foreign", [
  ["GOMAXPROCS", text, "Threads.", GO_RUNTIME],
  ["GODEBUG", text, "Debugging.", GO_RUNTIME],
  ["NOTIFY_SOCKET", text, "Socket of systemd.", "systemd sets it; daemon tells it its state"],
  ["WALE_S3_ENDPOINT", text, "Endpoint for WAL-E.", "as for WAL-G, AWS_ENDPOINT counts"],
  ["WALG_S3_ENDPOINT", text, "Endpoint for WAL-E.", "as for WAL-G, AWS_ENDPOINT counts"],
  ["WALE_LOG_DESTINATION", text, "Log of WAL-E.", WALE_LOG],
  ["WALE_SYSLOG_FACILITY", text, "Log of WAL-E.", WALE_LOG],
  ["WALE_SYSLOG_IDENT", text, "Log of WAL-E.", WALE_LOG],
  ["WALE_ENV_DIR", text, "Directory of settings.", IMAGE],
  ["WALE_BACKUP_THRESHOLD_MEGABYTES", text, "When a replica is made from a backup.", IMAGE],
  ["WALE_BACKUP_THRESHOLD_PERCENTAGE", text, "When a replica is made from a backup.", IMAGE],
  ["WALE_DISABLE_S3_SSE", text, "Leave out S3_SSE.", IMAGE],
  ["WALG_DISABLE_S3_SSE", text, "Leave out S3_SSE.", IMAGE],
  ["WALG_BACKUP_COMPRESSION_METHOD", text, "Method for backups.", IMAGE],
  ["WALG_BACKUP_FROM_REPLICA", text, "Back up a replica.", IMAGE],
]);

/** Settings of WAL-G and its neighbours that walnut knows but does nothing for. */
export const inertSettings: readonly Setting[] = [
  ...backups,
  ...wal,
  ...bareNames,
  ...s3,
  ...others,
  ...neighbours,
];
