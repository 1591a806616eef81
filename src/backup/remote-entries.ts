import type { BaseBackup, BaseBackupTablespace } from "../connection/backup-stream.ts";
import { DatabaseError, FormatError } from "../errors.ts";
import { type ByteStream, readAll } from "../io/bytes.ts";
import type { Tablespace } from "../layout/tablespace-spec.ts";
import { readTar, type TarEntry } from "../tar/read.ts";
import type { DocumentsSpool } from "./documents-spool.ts";
import type { StreamedFile } from "./entry-packer.ts";
import { CONTROL_FILE, fateOf, neededInEmptied } from "./exclusion.ts";
import { parseEntryName } from "./extract-path.ts";
import type { BaseFiles } from "./known-files.ts";
import { LABEL_PATH, TABLESPACE_MAP_PATH } from "./restore-plan.ts";
import { convertServerIncrement, SERVER_INCREMENT_PREFIX } from "./server-increment.ts";
import type { ServerManifestCheck } from "./server-manifest.ts";
import type { Spool } from "./spool.ts";
import type { WalkedDirectory } from "./walk.ts";

/** What the server sends, or what becomes of it. */
type RemoteEntry = StreamedFile | WalkedDirectory;

export interface RemoteEntriesOptions {
  readonly backup: BaseBackup;
  readonly majorVersion: number;
  /** Permission bits of the data directory, which no archive tells. */
  readonly directoryMode: number;
  readonly check: ServerManifestCheck;
  /** Gets PostgreSQL's manifest. */
  readonly manifest: Spool;
  /** Told of files that are as they were in the base. */
  readonly documents: DocumentsSpool;
  /** Of the base that the server was told of; absent for a full backup. */
  readonly baseFiles: BaseFiles | undefined;
  readonly signal: AbortSignal;
}

/** pg_control, backup_label and tablespace_map are held in memory; none is ever near this size. */
const MAX_SPECIAL_BYTES = 16 * 1024 * 1024;
const NOTHING: ReadonlySet<string> = new Set();
const NS_PER_S = 1_000_000_000n;

/** The files and directories of a base backup, in the server's order; each is checked on its way. */
export class RemoteEntries {
  readonly tablespaces: readonly Tablespace[];
  /** Of which the server sent nothing so far, not even a directory. */
  readonly emptyTablespaces: BaseBackupTablespace[] = [];
  readonly #options: RemoteEntriesOptions;
  readonly #specials = new Map<string, Buffer>();
  #catalogBytes = 0;

  constructor(options: RemoteEntriesOptions) {
    this.#options = options;
    this.tablespaces = options.backup.tablespaces.flatMap(specOf);
  }

  /** Sum of the sizes of all files that came, increments as they came. */
  get catalogBytes(): number {
    return this.#catalogBytes;
  }

  /** A file that is kept apart, once all entries are read; throws DatabaseError if none came. */
  special(path: string): Buffer {
    const bytes = this.#specials.get(path);
    if (bytes === undefined) throw new DatabaseError(`the server sent no ${path}`);
    return bytes;
  }

  /** What tablespace_map says; "" when the server sent none. */
  get tablespaceMap(): string {
    return this.#specials.get(TABLESPACE_MAP_PATH)?.toString() ?? "";
  }

  /** All entries but those that are kept apart; once. The manifest has been compared at its end. */
  async *entries(): AsyncGenerator<RemoteEntry, void, undefined> {
    const { backup, directoryMode, check, manifest, signal } = this.#options;
    let hasManifest = false;
    yield { kind: "directory", name: "/", mode: directoryMode, mtimeNs: 0n, uid: 0, gid: 0 };
    for await (const item of backup.items({ signal })) {
      if (item.kind === "archive") yield* this.#archive(item.tablespace, item.content);
      else {
        await check.compare(item.content, manifest);
        hasManifest = true;
      }
    }
    if (!hasManifest) throw new DatabaseError("the server sent no manifest of its backup");
  }

  async *#archive(
    tablespace: BaseBackupTablespace,
    content: ByteStream,
  ): AsyncGenerator<RemoteEntry, void, undefined> {
    const { oid } = tablespace;
    const prefix = oid === undefined ? "" : `pg_tblspc/${oid}/`;
    let isEmpty = true;
    for await (const entry of readTar(content, { isTrailerOptional: true })) {
      isEmpty = false;
      const path = `${prefix}${parseEntryName(entry.name)}`;
      if (entry.kind === "directory") {
        if (this.#isWanted(path)) yield { kind: "directory", ...common(path, entry) };
      } else if (entry.kind === "file") {
        const file = await this.#file(path, entry);
        if (file !== undefined) yield file;
      } else if (!(entry.kind === "symlink" && path.startsWith("pg_tblspc/"))) {
        throw new FormatError(`the server sent ${JSON.stringify(path)}, which is a ${entry.kind}`);
      }
    }
    if (isEmpty) this.emptyTablespaces.push(tablespace);
  }

  /** Undefined for a file that is kept apart, excluded, or as in the base. */
  async #file(path: string, entry: TarEntry): Promise<StreamedFile | undefined> {
    const { check } = this.#options;
    this.#catalogBytes += entry.sizeBytes;
    const content = check.observed(path, entry.sizeBytes, entry.content());
    if (path === CONTROL_FILE || path === LABEL_PATH || path === TABLESPACE_MAP_PATH) {
      this.#specials.set(path, await readAll(content, MAX_SPECIAL_BYTES));
      return undefined;
    }
    if (!this.#isWanted(path)) {
      for await (const _chunk of content);
      return undefined;
    }
    const slash = path.lastIndexOf("/") + 1;
    if (path.startsWith(SERVER_INCREMENT_PREFIX, slash)) {
      const name = path.slice(slash + SERVER_INCREMENT_PREFIX.length);
      return await this.#increment(`${path.slice(0, slash)}${name}`, entry, content);
    }
    const { sizeBytes } = entry;
    return { kind: "file", ...common(path, entry), path, sizeBytes, content: () => content };
  }

  async #increment(
    path: string,
    entry: TarEntry,
    content: ByteStream,
  ): Promise<StreamedFile | undefined> {
    const { baseFiles, documents } = this.#options;
    const base = baseFiles?.find(`/${path}`);
    if (base === undefined) {
      throw new FormatError(`the server sent changes of ${path}, which the base does not have`);
    }
    const { sizeBytes } = base;
    const converted = await convertServerIncrement(content, entry.sizeBytes, sizeBytes);
    const { fileBytes } = converted;
    const file = { kind: "file" as const, ...common(path, entry), path };
    if (converted.blockNumbers.length === 0 && fileBytes === sizeBytes) {
      for await (const _chunk of converted.content());
      documents.addUnchanged({ ...file, sizeBytes }, base.hash);
      return undefined;
    }
    return { ...file, ...converted, fullBytes: fileBytes };
  }

  /** What the server does not leave out itself. */
  #isWanted(path: string): boolean {
    for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) {
      const directory = path.slice(0, at);
      if (fateOf(directory, NOTHING) === "keep") continue;
      const needed = neededInEmptied(directory, this.#options.majorVersion);
      return needed.includes(path.slice(at + 1));
    }
    return fateOf(path, NOTHING) !== "skip";
  }
}

function common(path: string, { mode, modifiedAtSeconds }: TarEntry) {
  const mtimeNs = BigInt(Math.trunc(modifiedAtSeconds)) * NS_PER_S;
  return { name: `/${path}`, mode, mtimeNs, uid: 0, gid: 0 };
}

/** One within the data directory is no tablespace of its own to a restore. */
function specOf({ oid, location }: BaseBackupTablespace): Tablespace[] {
  if (oid === undefined || location === undefined || !location.startsWith("/")) return [];
  const name = String(oid);
  return [{ name, location: location.replace(/\/+$/, ""), link: `pg_tblspc/${name}` }];
}
