/** What initdb makes, without waiting for initdb each time. */
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { changeControl } from "./control-file.ts";
import { type Major, serverEnvironment, serverProgram } from "./postgres-programs.ts";
import type { ServerUser } from "./server-user.ts";

export interface DataDirectoryOptions {
  readonly major: Major;
  /** 16 unless told; 1 makes archive tests cheap. */
  readonly segmentMiB?: number;
  /** Data checksums; on unless told. */
  readonly checksums?: boolean;
  /** Puts pg_wal there and a symbolic link into the data directory. */
  readonly walDirectory?: string;
}

/** Where it is to be: below a directory that the user owns. */
interface Place {
  readonly root: string;
  readonly dataDirectory: string;
  readonly user: ServerUser | undefined;
}

const LONG_HEADER = 0x0002;

/**
 * Makes a data directory of a cluster of its own. `npm test` names a directory for what initdb made
 * once for each kind; clusters are copies of it, each with a system identifier of its own.
 */
export function makeDataDirectory(options: DataDirectoryOptions, place: Place): void {
  const templates = process.env["WALNUT_CLUSTER_TEMPLATES"];
  if (templates === undefined || options.walDirectory !== undefined) {
    runInitdb(options, place.dataDirectory, place);
    return;
  }
  const { major, segmentMiB = 16, checksums = true } = options;
  const template = join(templates, `${major}-${segmentMiB}-${checksums}`);
  if (!existsSync(template)) addTemplate(template, options, place);
  run("cp", ["-a", template, place.dataDirectory], { major, place });
  // As initdb makes them: the seconds, and what tells clusters of one second apart.
  const seconds = BigInt(Math.floor(Date.now() / 1000));
  giveIdentity(place.dataDirectory, (seconds << 32n) | BigInt(randomBytes(4).readUInt32LE()));
}

/** Another process may make the same one: the first stays. */
function addTemplate(template: string, options: DataDirectoryOptions, place: Place): void {
  const made = join(place.root, "template");
  runInitdb(options, made, place);
  try {
    renameSync(made, template);
  } catch (error) {
    rmSync(made, { recursive: true, force: true });
    if (!existsSync(template)) throw error;
  }
}

function runInitdb(options: DataDirectoryOptions, dataDirectory: string, place: Place): void {
  const { major } = options;
  const words = ["-D", dataDirectory, "-U", "postgres", "-A", "trust", "-N", "--no-locale"];
  words.push("-E", "UTF8", `--wal-segsize=${options.segmentMiB ?? 16}`);
  if (options.checksums !== false) words.push("--data-checksums");
  else if (major >= 18) words.push("--no-data-checksums");
  if (options.walDirectory !== undefined) words.push("-X", options.walDirectory);
  run(serverProgram(major, "initdb"), words, { major, place });
}

function run(
  program: string,
  words: readonly string[],
  { major, place }: { readonly major: Major; readonly place: Place },
): void {
  const { status, stderr, error } = spawnSync(program, words, {
    ...place.user,
    cwd: place.root,
    encoding: "utf8",
    env: serverEnvironment(place.root, {}),
  });
  if (status === 0) return;
  rmSync(place.root, { recursive: true, force: true });
  throw new Error(`${program} for PostgreSQL ${major} failed: ${stderr}${error ?? ""}`);
}

/** pg_control has it, and the first page of each WAL segment. */
function giveIdentity(dataDirectory: string, systemId: bigint): void {
  const controlPath = join(dataDirectory, "global", "pg_control");
  writeFileSync(controlPath, changeControl(readFileSync(controlPath), { systemId }));
  const walDirectory = join(dataDirectory, "pg_wal");
  for (const name of readdirSync(walDirectory).filter((one) => /^[0-9A-F]{24}$/.test(one))) {
    const path = join(walDirectory, name);
    const bytes = readFileSync(path);
    if ((bytes.readUInt16LE(2) & LONG_HEADER) === 0) continue;
    bytes.writeBigUInt64LE(systemId, 24);
    writeFileSync(path, bytes);
  }
}
