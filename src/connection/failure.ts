import { DatabaseError, OperationError, systemErrorCode } from "../errors.ts";

/** What an administrator can do about an SQLSTATE; whole codes go before their classes. */
const HINTS: readonly (readonly [sqlState: string, hint: string])[] = [
  ["28P01", "Give the password by PGPASSWORD, or by a line in ~/.pgpass (mode 0600)."],
  ["28", "Check PGUSER, and whether pg_hba.conf lets this role in from here."],
  ["3D000", "Set PGDATABASE to a database that exists, for instance postgres."],
  [
    "42501",
    "The role lacks a right. As superuser, in the database that PGDATABASE names: " +
      "GRANT pg_monitor TO <role>; GRANT EXECUTE ON FUNCTION pg_backup_start, pg_backup_stop " +
      "TO <role>; before PostgreSQL 15 the functions are pg_start_backup and " +
      "pg_stop_backup(boolean, boolean).",
  ],
  ["53300", "Raise max_connections, or reserve a connection for the backup."],
  ["57P01", "The server was stopped or the session was ended by an administrator."],
  ["57P02", "Another server process crashed and PostgreSQL restarted; see the server's log."],
  ["57P03", "The server is starting or stopping: try again when it takes connections."],
];

const NETWORK_HINTS: ReadonlyMap<string, string> = new Map([
  ["ECONNREFUSED", "Is the server running there? Check PGHOST and PGPORT."],
  ["ENOENT", "No server has a socket there. Is it running? Check PGHOST and PGPORT."],
  ["EACCES", "The user that runs walnut may not use the server's socket."],
  ["ENOTFOUND", "The name can't be resolved: check PGHOST."],
  ["ETIMEDOUT", "The host does not answer: check PGHOST and the firewall."],
  ["EHOSTUNREACH", "The host can't be reached: check PGHOST and the network."],
]);

/** What the server calls a kind of error: five characters, or undefined for all other errors. */
export function sqlStateOf(error: unknown): string | undefined {
  const code = systemErrorCode(error);
  return code !== undefined && /^[0-9A-Z]{5}$/.test(code) && isServerError(error)
    ? code
    : undefined;
}

function isServerError(error: unknown): boolean {
  return error instanceof Error && "severity" in error;
}

/** What can be done about an error of the server, where we know better than the server does. */
export function hintOfServer(sqlState: string, text: string): string | undefined {
  return hintOfWords(text) ?? HINTS.find(([state]) => sqlState.startsWith(state))?.[1];
}

/** DatabaseError "<action>: <what the server or the system said>"; our own errors are kept. */
export function databaseError(action: string, error: unknown): OperationError {
  if (error instanceof OperationError) return error;
  const sqlState = sqlStateOf(error);
  const suffix = sqlState === undefined ? "" : ` (SQLSTATE ${sqlState})`;
  const hint = hintOf(error, sqlState);
  return new DatabaseError(`${action}: ${textOf(error)}${suffix}`, {
    ...(hint === undefined ? {} : { hint }),
    cause: error,
  });
}

/** Where the words tell more than the SQLSTATE. */
const WORD_HINTS: readonly (readonly [words: RegExp, hint: string])[] = [
  [
    /replication slot .* is active for PID/,
    "Another process receives through this slot: a second wal-receive? Stop one of them, or give each a " +
      "slot of its own by WALG_SLOTNAME. After a crash the server may need a minute to notice that the " +
      "receiver has gone.",
  ],
  [
    /permission denied to (start WAL sender|use replication slots)|superuser or replication role/,
    "As superuser: ALTER ROLE <role> REPLICATION.",
  ],
  [
    /max_wal_senders/,
    "Raise max_wal_senders: a remote backup needs one beside standbys and wal-receive; see " +
      "pg_stat_replication.",
  ],
  [
    /no pg_hba\.conf entry .*no encryption/,
    "pg_hba.conf may let only encrypted connections in: set PGSSLMODE to prefer or require.",
  ],
  [
    /self[- ]signed certificate|unable to (verify|get)/,
    "Nobody here vouches for the server's certificate: set PGSSLROOTCERT to the file of its authority.",
  ],
];

function hintOf(error: unknown, sqlState: string | undefined): string | undefined {
  if (sqlState !== undefined) return hintOfServer(sqlState, textOf(error)) ?? serverHint(error);
  return hintOfWords(textOf(error)) ?? NETWORK_HINTS.get(systemErrorCode(error) ?? "");
}

function hintOfWords(text: string): string | undefined {
  return WORD_HINTS.find(([words]) => words.test(text))?.[1];
}

/** What the server itself says there is to do. */
function serverHint(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("hint" in error)) return undefined;
  return typeof error.hint === "string" ? error.hint : undefined;
}

function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // Node.js tells of several addresses that all failed in an error without a message.
  if (error instanceof AggregateError && error.message === "") {
    return error.errors.map(textOf).join("; ");
  }
  const text = error.message === "" ? error.name : error.message;
  return text.charAt(0).toLowerCase() + text.slice(1);
}
