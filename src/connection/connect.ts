import { execFile } from "node:child_process";
import { readFile, stat } from "node:fs/promises";
import { Socket } from "node:net";
import { join } from "node:path";
import type { ConnectionOptions } from "node:tls";
import { promisify } from "node:util";
import { Client } from "pg";
import { ConfigError, DatabaseError, type OperationError, systemErrorCode } from "../errors.ts";
import { untilAborted } from "../io/abort.ts";
import { homeDirectory, ownUserId } from "../io/own-user.ts";
import { localFileError } from "../io/system-error.ts";
import { databaseError, sqlStateOf } from "./failure.ts";
import { findPassword, parsePasswordFile } from "./password-file.ts";
import { Session } from "./session.ts";
import {
  connectionTargets,
  type ConnectionSettings,
  type ConnectionTarget,
  formatTarget,
  isSocketDirectory,
  passwordFileHost,
} from "./target.ts";

const CONNECT_TIMEOUT_MS = 30_000;
/** Routers forget idle connections after some minutes. */
const KEEPALIVE_DELAY_MS = 30_000;
const OTHERS_MODE_BITS = 0o077;

/** Our queries take what time they need, and mean the same in every database. */
const SESSION_SETTINGS = [
  "SET statement_timeout = 0",
  "SET lock_timeout = 0",
  "SET idle_in_transaction_session_timeout = 0",
  "SET client_encoding = 'UTF8'",
  "SET search_path = pg_catalog",
  "SET standard_conforming_strings = on",
  "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'",
].join("; ");

/** The client was told a number, too; a pooler makes its own. */
const OWN_PROCESS = "SELECT pg_backend_pid() AS pid";

/** Columns stay as PostgreSQL writes them, so that no number loses digits. */
const TEXT_COLUMNS = { getTypeParser: () => (text: string) => text };

/**
 * Connects as libpq would with these settings; host by host when there are several. Rejects with
 * DatabaseError for the first host that answered, else for the last; ConfigError for a certificate
 * that can't be read.
 */
export async function connectPostgres(
  settings: ConnectionSettings,
  { signal }: { readonly signal: AbortSignal },
): Promise<Session> {
  const { target, client, socket } = await connectClient(settings, { signal, use: "queries" });
  const address = formatTarget(target);
  try {
    const { rows } = await untilAborted(client.query<PidRow>(OWN_PROCESS), signal);
    const isPooled = rows[0]?.pid !== String(Reflect.get(client, "processID"));
    return new Session(client, { address, isPooled, socket });
  } catch (error) {
    socket.destroy();
    signal.throwIfAborted();
    throw databaseError(`can't use PostgreSQL at ${address}`, error);
  }
}

interface PidRow {
  readonly pid: string;
}

/** A client that is connected and logged in. */
export interface ConnectedClient {
  readonly target: ConnectionTarget;
  readonly client: Client;
  readonly socket: Socket;
}

/**
 * Like connectPostgres, but gives npm pg's own client; for "replication" one of a walsender, which
 * takes replication commands only.
 */
export async function connectClient(
  settings: ConnectionSettings,
  { signal, use }: { readonly signal: AbortSignal; readonly use: "queries" | "replication" },
): Promise<ConnectedClient> {
  signal.throwIfAborted();
  const user = settings.user ?? (await currentUser());
  // The name that libpq looks for in a password file; a walsender belongs to no database.
  const database = use === "replication" ? "replication" : (settings.database ?? user);
  const login = { user, database };
  const certificates = await readCertificates(settings);
  let failure: OperationError | undefined;
  for (const target of connectionTargets(settings, certificates.ca !== undefined)) {
    try {
      return await connectTo(target, { settings, login, certificates, signal, use });
    } catch (error) {
      signal.throwIfAborted();
      const action = `can't connect to PostgreSQL at ${formatTarget(target)} as ${user}`;
      const translated = databaseError(action, error);
      // A server that refused us says more than a socket that is not there.
      if (failure === undefined || isAnswer(translated) || !isAnswer(failure)) failure = translated;
      if (isAnswer(translated) && !isWorthAnotherTry(error)) break;
    }
  }
  throw failure ?? new DatabaseError("no host to connect to");
}

interface Login {
  readonly user: string;
  readonly database: string;
}

interface ConnectParts {
  readonly settings: ConnectionSettings;
  readonly login: Login;
  readonly certificates: Certificates;
  readonly signal: AbortSignal;
  readonly use: "queries" | "replication";
}

async function connectTo(target: ConnectionTarget, parts: ConnectParts): Promise<ConnectedClient> {
  const { settings, login, certificates, signal, use } = parts;
  const socket = new Socket();
  const client = new Client({
    host: target.host,
    port: target.port,
    user: login.user,
    database: login.database,
    password: () => findConnectionPassword(target, settings, login),
    ssl: tlsOptions(target, certificates),
    application_name: settings.applicationName,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEPALIVE_DELAY_MS,
    types: TEXT_COLUMNS,
    stream: () => socket,
    ...(use === "replication" ? { replication: "true" } : {}),
  });
  // Errors before the connection is made come by the promise as well.
  client.on("error", () => {});
  try {
    await untilAborted(client.connect(), signal);
    if (use === "queries") await untilAborted(client.query(SESSION_SETTINGS), signal);
  } catch (error) {
    socket.destroy();
    throw error;
  }
  return { target, client, socket };
}

/** Whether a server was there and said no, rather than an error of the network. */
function isAnswer(error: OperationError): boolean {
  const isOurs = error.cause === undefined;
  return isOurs || sqlStateOf(error.cause) !== undefined || isTlsUnknown(error.cause);
}

function isTlsUnknown(error: unknown): boolean {
  return error instanceof Error && /does not support SSL/.test(error.message);
}

/** pg_hba.conf may allow what is encrypted and refuse what is not, or the other way round. */
function isWorthAnotherTry(error: unknown): boolean {
  return sqlStateOf(error) === "28000" || isTlsUnknown(error);
}

async function findConnectionPassword(
  target: ConnectionTarget,
  settings: ConnectionSettings,
  login: Login,
): Promise<string> {
  if (settings.password !== undefined) return settings.password;
  const path = settings.passwordFile ?? join(homeOrRoot(), ".pgpass");
  const entries = await readPasswordFile(path);
  const host = passwordFileHost(target.host);
  const password = findPassword(entries, { ...login, host, port: target.port });
  if (password !== undefined) return password;
  throw new DatabaseError(
    `PostgreSQL at ${formatTarget(target)} wants a password of ${login.user}`,
    { hint: `Set PGPASSWORD, or add a line for it to ${path} (mode 0600).` },
  );
}

/** Who has no home directory has no files in it either. */
function homeOrRoot(): string {
  return homeDirectory() ?? "/";
}

async function readPasswordFile(path: string) {
  try {
    const { mode } = await stat(path);
    if ((mode & OTHERS_MODE_BITS) !== 0) {
      throw new DatabaseError(`password file ${path} may be read by others`, {
        hint: `As libpq we don't use it then: chmod 0600 ${path}`,
      });
    }
    return parsePasswordFile(await readFile(path, "utf8"));
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return [];
    throw localFileError("read password file", path, error);
  }
}

interface Certificates {
  readonly ca?: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
}

async function readCertificates(settings: ConnectionSettings): Promise<Certificates> {
  if (settings.sslMode === "disable") return {};
  const { sslRootCertificateFile: rootFile, sslCertificateFile, sslKeyFile } = settings;
  const folder = join(homeOrRoot(), ".postgresql");
  const ca =
    rootFile === "system" ? undefined : await readCertificate(rootFile, join(folder, "root.crt"));
  const cert = await readCertificate(sslCertificateFile, join(folder, "postgresql.crt"));
  const key = await readCertificate(sslKeyFile, join(folder, "postgresql.key"));
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
  };
}

/** The default file may be absent, also in a home that is not ours to look into; a named one not. */
async function readCertificate(
  named: string | undefined,
  usual: string,
): Promise<Buffer | undefined> {
  const path = named ?? usual;
  try {
    return await readFile(path);
  } catch (error) {
    if (named === undefined && !(await isUnreadable(path, error))) return undefined;
    throw new ConfigError(`can't read the certificate ${path}`, { cause: error });
  }
}

/** Whether the file is there and may not be read. */
async function isUnreadable(path: string, error: unknown): Promise<boolean> {
  if (systemErrorCode(error) !== "EACCES") return false;
  return await stat(path).then(
    () => true,
    () => false,
  );
}

function tlsOptions(
  target: ConnectionTarget,
  certificates: Certificates,
): false | ConnectionOptions {
  if (target.tls === "none" || isSocketDirectory(target.host)) return false;
  if (target.tls === "required") {
    const { cert, key } = certificates;
    const own = { ...(cert === undefined ? {} : { cert }), ...(key === undefined ? {} : { key }) };
    return { ...own, rejectUnauthorized: false };
  }
  const isNameChecked = target.tls === "verified";
  return {
    ...certificates,
    rejectUnauthorized: true,
    ...(isNameChecked ? {} : { checkServerIdentity: () => undefined }),
  };
}

/** libpq asks the system, not the environment. */
async function currentUser(): Promise<string> {
  const uid = ownUserId();
  const users = await readFile("/etc/passwd", "utf8").catch(() => "");
  for (const line of users.split("\n")) {
    const [name, , id] = line.split(":");
    if (name !== undefined && name !== "" && id === String(uid)) return name;
  }
  try {
    const { stdout } = await promisify(execFile)("id", ["-un"]);
    return stdout.trim();
  } catch (error) {
    throw new DatabaseError(`user ${uid} has no name on this system`, {
      hint: "Set PGUSER to the role to connect as.",
      cause: error,
    });
  }
}
