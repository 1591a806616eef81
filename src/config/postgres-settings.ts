import { defaulted, setting } from "./setting.ts";
import { boolean, choice, duration, integer, path, secret, text } from "./value-types.ts";

const LIBPQ = { form: "foreign" } as const;

/** How to reach PostgreSQL, and how long to wait for it. */
export const postgres = {
  host: setting("PGHOST", text, "Host, or directory of the socket, of PostgreSQL.", LIBPQ),
  port: setting("PGPORT", integer(1, 65_535), "Port of PostgreSQL.", LIBPQ),
  user: setting("PGUSER", text, "Role that backup-push connects as.", LIBPQ),
  password: setting("PGPASSWORD", secret, "Password of that role.", LIBPQ),
  passwordFile: setting("PGPASSFILE", path, "Password file of libpq.", LIBPQ),
  database: setting("PGDATABASE", text, "Database to connect to.", LIBPQ),
  applicationName: defaulted("PGAPPNAME", text, "Name of the session in pg_stat_activity.", {
    ...LIBPQ,
    default: "walnut",
  }),
  sslMode: setting(
    "PGSSLMODE",
    choice(["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
    "Whether the connection is encrypted and the server's certificate checked.",
    LIBPQ,
  ),
  sslKeyFile: setting("PGSSLKEY", path, "Key of the client's certificate.", LIBPQ),
  sslCertificateFile: setting("PGSSLCERT", path, "The client's certificate.", LIBPQ),
  sslRootCertificateFile: setting("PGSSLROOTCERT", path, "Certificates to trust.", LIBPQ),
  dataDirectory: setting("PGDATA", path, "The data directory.", LIBPQ),

  archiveCheckTimeout: defaulted(
    "ARCHIVE_CHECK_TIMEOUT",
    duration({ minMs: 1000 }),
    "How long backup-push waits at its start for a switched segment to arrive in the archive.",
    { form: "own", default: "60s" },
  ),
  aliveCheckInterval: defaulted(
    "ALIVE_CHECK_INTERVAL",
    duration({ minMs: 0 }),
    "How often the session of a running backup is asked whether it still lives; 0 = never.",
    { default: "5s" },
  ),
  stopBackupTimeout: defaulted(
    "STOP_BACKUP_TIMEOUT",
    duration({ minMs: 0 }),
    "How long backup-push waits at its end for the last segment; 0 = without end.",
    { default: "0" },
  ),
  disablePartialRestore: defaulted(
    "DISABLE_PARTIAL_RESTORE",
    boolean,
    "Leave out the names of databases and tables that partial restores need.",
    { default: "false" },
  ),
} as const;
