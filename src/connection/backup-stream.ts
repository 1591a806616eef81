import { FormatError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { type Lsn, parseLsn } from "../postgres/lsn.ts";
import {
  type BackendMessage,
  parseComplaint,
  parseRow,
  type RawRow,
  type ServerComplaint,
} from "./backend-message.ts";
import type { MessageSocket } from "./message-socket.ts";

/** How the server hashes the files that it names in its manifest. */
export type ServerManifestHash = "CRC32C" | "SHA256";

export interface BaseBackupRequest {
  readonly majorVersion: number;
  /** For people only. */
  readonly label: string;
  /** 32 to 1048576; absent = as fast as it goes. */
  readonly maxRateKib?: number | undefined;
  readonly manifestHash: ServerManifestHash;
  /** Whether the server verifies checksums of pages; it ends the backup with an error then. */
  readonly isPageVerified: boolean;
  /** From 17 on, after UPLOAD_MANIFEST: only what changed since that backup. */
  readonly isIncrement: boolean;
}

/** Where a backup begins or ends. */
export interface BaseBackupPosition {
  readonly lsn: Lsn;
  readonly timeline: number;
}

/** One tar of the backup; the data directory has neither oid nor location, and comes last. */
export interface BaseBackupTablespace {
  readonly oid: number | undefined;
  /** As the server has it: absolute but for one within the data directory. */
  readonly location: string | undefined;
  /** An estimate. */
  readonly sizeBytes: number | undefined;
}

/** What comes one after the other; each content has to be read to its end. */
export type BaseBackupItem =
  | {
      readonly kind: "archive";
      readonly tablespace: BaseBackupTablespace;
      /** A tar; before 15 without the blocks that end it. */
      readonly content: ByteStream;
    }
  | { readonly kind: "manifest"; readonly content: ByteStream };

export interface BaseBackupOptions {
  /** Told what the server warns of meanwhile. */
  readonly onNotice: (complaint: ServerComplaint) => void;
  /** Throws the server's error; reads the session to where it takes commands again. */
  readonly fail: (message: BackendMessage, options: CallOptions) => Promise<never>;
}

interface CallOptions {
  readonly signal: AbortSignal;
}

/** First release with options in parentheses, and one copy for all archives. */
const NEW_SYNTAX_SINCE = 15;
const BYTES_PER_KIB = 1024;

/**
 * Text of the command. The server does not wait for its archiver: we wait ourselves, for the
 * repository.
 *
 * @source PostgreSQL's documentation, "Streaming Replication Protocol", BASE_BACKUP
 */
export function formatBaseBackup(request: BaseBackupRequest): string {
  const { majorVersion, maxRateKib, manifestHash, isPageVerified, isIncrement } = request;
  const label = `'${request.label.replaceAll("'", "''")}'`;
  if (majorVersion < NEW_SYNTAX_SINCE) {
    const words = [`BASE_BACKUP LABEL ${label} PROGRESS FAST NOWAIT`];
    if (maxRateKib !== undefined) words.push(`MAX_RATE ${maxRateKib}`);
    words.push("TABLESPACE_MAP");
    if (!isPageVerified) words.push("NOVERIFY_CHECKSUMS");
    words.push(`MANIFEST 'yes' MANIFEST_CHECKSUMS '${manifestHash}'`);
    return words.join(" ");
  }
  const options = [`LABEL ${label}`, "PROGRESS", "CHECKPOINT 'fast'", "WAIT false"];
  if (maxRateKib !== undefined) options.push(`MAX_RATE ${maxRateKib}`);
  options.push("TABLESPACE_MAP", `VERIFY_CHECKSUMS ${isPageVerified}`);
  options.push("MANIFEST 'yes'", `MANIFEST_CHECKSUMS '${manifestHash}'`);
  if (isIncrement) options.push("INCREMENTAL");
  return `BASE_BACKUP (${options.join(", ")})`;
}

/**
 * A base backup as a walsender sends it: first where it begins and what tablespaces there are, then
 * one tar each and the manifest, last where it ends. The server is held up while nothing is read.
 *
 * @source src/backend/backup/basebackup_copy.c; src/backend/replication/basebackup.c before 15
 */
export class BaseBackup {
  readonly start: BaseBackupPosition;
  readonly tablespaces: readonly BaseBackupTablespace[];
  readonly #socket: MessageSocket;
  readonly #options: BaseBackupOptions;
  readonly #isOneCopy: boolean;
  #end: BaseBackupPosition | undefined;

  /** Made by ReplicationSession, right after it has sent the command. */
  static async begin(
    socket: MessageSocket,
    { majorVersion }: Pick<BaseBackupRequest, "majorVersion">,
    options: BaseBackupOptions & CallOptions,
  ): Promise<BaseBackup> {
    const reader = new AnswerReader(socket, options, options);
    const start = positionOf(await reader.rows());
    const tablespaces = (await reader.rows()).map(tablespaceOf);
    const isOneCopy = majorVersion >= NEW_SYNTAX_SINCE;
    return new BaseBackup({ socket, options, isOneCopy, start, tablespaces });
  }

  private constructor(parts: {
    readonly socket: MessageSocket;
    readonly options: BaseBackupOptions;
    readonly isOneCopy: boolean;
    readonly start: BaseBackupPosition;
    readonly tablespaces: readonly BaseBackupTablespace[];
  }) {
    this.#socket = parts.socket;
    this.#options = parts.options;
    this.#isOneCopy = parts.isOneCopy;
    this.start = parts.start;
    this.tablespaces = parts.tablespaces;
  }

  /** Known once all items are read. */
  get end(): BaseBackupPosition {
    if (this.#end === undefined) throw new Error("the base backup is not at its end");
    return this.#end;
  }

  /** All archives in the server's order, then the manifest; once. */
  async *items(call: CallOptions): AsyncGenerator<BaseBackupItem, void, undefined> {
    const reader = new AnswerReader(this.#socket, this.#options, call);
    yield* this.#isOneCopy ? this.#tagged(reader) : this.#separate(reader);
    this.#end = positionOf(await reader.rows());
    await reader.untilReady();
  }

  async *#separate(reader: AnswerReader): AsyncGenerator<BaseBackupItem, void, undefined> {
    for (const tablespace of this.tablespaces) {
      await reader.expect("H");
      yield { kind: "archive", tablespace, content: copied(reader) };
    }
    await reader.expect("H");
    yield { kind: "manifest", content: copied(reader) };
  }

  async *#tagged(reader: AnswerReader): AsyncGenerator<BaseBackupItem, void, undefined> {
    await reader.expect("H");
    const copy = new TaggedCopy(reader);
    let index = 0;
    for (let tag = await copy.nextItem(); tag !== undefined; tag = await copy.nextItem()) {
      if (tag === "m") {
        yield { kind: "manifest", content: copy.content() };
        continue;
      }
      const tablespace = this.tablespaces[index];
      if (tablespace === undefined) {
        throw new FormatError(`the server sends more than ${index} archives`);
      }
      index += 1;
      yield { kind: "archive", tablespace, content: copy.content() };
    }
    if (index < this.tablespaces.length) {
      throw new FormatError(`the server sent ${index} archives of ${this.tablespaces.length}`);
    }
  }
}

/** Copy messages up to the end of the copy. */
async function* copied(reader: AnswerReader): ByteStream {
  for (;;) {
    const { type, body } = await reader.next();
    if (type === "c") return;
    if (type !== "d") throw unexpected(type);
    yield body;
  }
}

/** One copy in which a byte before the content says what it is. */
class TaggedCopy {
  readonly #reader: AnswerReader;
  /** Begins the next item; undefined: not read yet. */
  #pending: "n" | "m" | "end" | undefined;

  constructor(reader: AnswerReader) {
    this.#reader = reader;
  }

  /** "n" for an archive, "m" for the manifest; undefined at the end. */
  async nextItem(): Promise<"n" | "m" | undefined> {
    if (this.#pending === undefined) {
      const bytes = await this.#nextContent();
      if (bytes !== undefined) {
        throw new FormatError(`the server sends ${bytes.length} bytes that belong to no archive`);
      }
    }
    const tag = this.#pending;
    if (tag === "end") return undefined;
    this.#pending = undefined;
    return tag;
  }

  async *content(): ByteStream {
    for (;;) {
      const bytes = await this.#nextContent();
      if (bytes === undefined) return;
      yield bytes;
    }
  }

  /** Undefined where the item ends. */
  async #nextContent(): Promise<Buffer | undefined> {
    for (;;) {
      const { type, body } = await this.#reader.next();
      if (type === "c") this.#pending = "end";
      else if (type !== "d") throw unexpected(type);
      else {
        const tag = String.fromCharCode(body[0] ?? 0);
        if (tag === "d") return body.subarray(1);
        if (tag === "p") continue;
        if (tag !== "n" && tag !== "m") throw new FormatError(`the server tags a copy ${tag}`);
        this.#pending = tag;
      }
      return undefined;
    }
  }
}

/** The server's answers without what may come at any time. */
class AnswerReader {
  readonly #socket: MessageSocket;
  readonly #options: BaseBackupOptions;
  readonly #call: CallOptions;

  constructor(socket: MessageSocket, options: BaseBackupOptions, call: CallOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#call = call;
  }

  async next(): Promise<BackendMessage> {
    for (;;) {
      const message = await this.#socket.next(this.#call);
      if (message.type === "E") await this.#options.fail(message, this.#call);
      else if (message.type === "N") this.#options.onNotice(parseComplaint(message.body));
      else if (message.type !== "S") return message;
    }
  }

  async expect(type: string): Promise<void> {
    const message = await this.next();
    if (message.type !== type) throw unexpected(message.type);
  }

  /** One result: its description, its rows, its end. */
  async rows(): Promise<readonly RawRow[]> {
    const rows: RawRow[] = [];
    await this.expect("T");
    for (;;) {
      const { type, body } = await this.next();
      if (type === "C") return rows;
      if (type !== "D") throw unexpected(type);
      rows.push(parseRow(body));
    }
  }

  async untilReady(): Promise<void> {
    while ((await this.next()).type !== "Z");
  }
}

function unexpected(type: string): FormatError {
  return new FormatError(`the server sent message ${JSON.stringify(type)} during BASE_BACKUP`);
}

function positionOf(rows: readonly RawRow[]): BaseBackupPosition {
  const [[position, timeline] = []] = rows;
  if (position === undefined || timeline === undefined || rows.length > 1) {
    throw new FormatError("BASE_BACKUP was answered without a position");
  }
  return {
    lsn: parseLsn(position.toString("latin1")),
    timeline: Number(timeline.toString("latin1")),
  };
}

function tablespaceOf([oid, location, sizeKib]: RawRow): BaseBackupTablespace {
  return {
    oid: oid === undefined ? undefined : Number(oid.toString("latin1")),
    location: location?.toString("utf8"),
    sizeBytes:
      sizeKib === undefined ? undefined : Number(sizeKib.toString("latin1")) * BYTES_PER_KIB,
  };
}
