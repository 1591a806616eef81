import { createReadStream } from "node:fs";
import { open, readdir, lstat, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { DamagedError, FormatError, systemErrorCode } from "../errors.ts";
import { ByteCursor } from "../io/byte-cursor.ts";
import { type ByteStream, CHUNK_BYTES } from "../io/bytes.ts";
import { fsyncDirectory } from "../io/durable.ts";
import { createHasher } from "../io/hash.ts";
import { localFileError } from "../io/system-error.ts";
import { writeAll } from "../io/write-all.ts";
import { PG_CONTROL_BYTES } from "../postgres/pg-control.ts";
import { parseRelationPath } from "../postgres/relation-file.ts";
import { formatListedFile } from "./catch-up-messages.ts";

/** In the data directory from before the first change to after the last one. */
const CATCH_UP_STATE_NAME = "walnut_catchup";

const HEAD = Buffer.from("walnut catch-up state 1\n");
const DIGEST_BYTES = 16;

/**
 * What a standby's directory was when it was last whole: its pg_control, and its relation files
 * with their sizes as lines. What a run has written since is worth nothing without its end, so the
 * next one goes by this.
 */
export class CatchUpState {
  readonly control: Buffer;
  readonly #path: string;
  readonly #listBytes: number;

  private constructor(path: string, control: Buffer, listBytes: number) {
    this.#path = path;
    this.control = control;
    this.#listBytes = listBytes;
  }

  /** Writes it down, durably. Nothing may have been changed in the directory yet. */
  static async write(place: string, control: Buffer, signal: AbortSignal): Promise<CatchUpState> {
    const path = join(place, CATCH_UP_STATE_NAME);
    const temporary = `${path}.tmp`;
    const hasher = await createHasher("xxh64");
    let listBytes = 0;
    try {
      await using file = await open(temporary, "w", 0o600);
      const put = async (bytes: Buffer): Promise<void> => {
        hasher.update(bytes);
        await writeAll(file, bytes);
      };
      await put(HEAD);
      await put(control);
      for await (const lines of listRelations(place)) {
        signal.throwIfAborted();
        listBytes += lines.length;
        await put(lines);
      }
      await writeAll(file, Buffer.from(hasher.digest()));
      await file.sync();
    } catch (error) {
      throw localFileError("write", temporary, error);
    }
    await rename(temporary, path);
    await fsyncDirectory(place);
    return new CatchUpState(path, control, listBytes);
  }

  /** Reads and checks that of a run that was killed. Throws DamagedError. */
  static async read(place: string): Promise<CatchUpState> {
    const path = join(place, CATCH_UP_STATE_NAME);
    const hint = "Restore the directory by backup-fetch.";
    try {
      const { size } = await lstat(path);
      const listBytes = size - HEAD.length - PG_CONTROL_BYTES - DIGEST_BYTES;
      if (listBytes < 0) throw new FormatError("it is too short");
      const hasher = await createHasher("xxh64");
      const bytes = new ByteCursor(readFrom(path, 0), "it");
      const head = await bytes.readExactly(HEAD.length + PG_CONTROL_BYTES);
      if (!head.subarray(0, HEAD.length).equals(HEAD)) throw new FormatError("it is another file");
      hasher.update(head);
      for (let left = listBytes; left > 0;) {
        const piece = await bytes.readExactly(Math.min(left, CHUNK_BYTES));
        hasher.update(piece);
        left -= piece.length;
      }
      const digest = await bytes.readExactly(DIGEST_BYTES);
      if (hasher.digest() !== digest.toString()) throw new FormatError("its checksum is wrong");
      return new CatchUpState(path, head.subarray(HEAD.length), listBytes);
    } catch (error) {
      if (systemErrorCode(error) === "ENOENT") {
        throw new DamagedError(`${place} was being changed, and ${path} is missing`, { hint });
      }
      if (!(error instanceof FormatError)) throw localFileError("read", path, error);
      throw new DamagedError(`${path} is damaged: ${error.message}`, { hint, cause: error });
    }
  }

  /** The list, in pieces of whole lines. */
  async *lines(): AsyncGenerator<Buffer> {
    if (this.#listBytes === 0) return;
    const start = HEAD.length + PG_CONTROL_BYTES;
    let rest = Buffer.alloc(0);
    for await (const chunk of readFrom(this.#path, start, start + this.#listBytes - 1)) {
      const bytes = Buffer.concat([rest, chunk]);
      const end = bytes.lastIndexOf("\n") + 1;
      if (end > 0) yield bytes.subarray(0, end);
      rest = bytes.subarray(end);
    }
    if (rest.length > 0) throw new FormatError(`${this.#path} ends within a line`);
  }
}

/** Removes it when the directory is whole; nobody misses one that is left. */
export async function removeState(place: string): Promise<void> {
  const path = join(place, CATCH_UP_STATE_NAME);
  for (const name of [path, `${path}.tmp`]) {
    await rm(name, { force: true }).catch((error: unknown) => {
      throw localFileError("remove", name, error);
    });
  }
}

/** Half of the largest frame: lines that were cut in two are put together again. */
const PIECE_BYTES = CHUNK_BYTES / 2;

async function* readFrom(path: string, start: number, end?: number): ByteStream {
  const options = { start, highWaterMark: PIECE_BYTES, ...(end === undefined ? {} : { end }) };
  for await (const chunk of createReadStream(path, options)) {
    if (!(chunk instanceof Uint8Array)) throw new TypeError("a file gave no bytes");
    yield chunk;
  }
}

/** Main forks of relations with their sizes: what is not one of them is sent whole anyway. */
async function* listRelations(place: string): AsyncGenerator<Buffer> {
  let lines = "";
  for (const root of ["base", "pg_tblspc"]) {
    for await (const path of walkFiles(place, root)) {
      if (parseRelationPath(path)?.fork !== "main") continue;
      const stats = await lstat(join(place, path)).catch(() => undefined);
      if (stats?.isFile() !== true) continue;
      lines += formatListedFile({ path, sizeBytes: stats.size });
      if (lines.length < PIECE_BYTES) continue;
      yield Buffer.from(lines);
      lines = "";
    }
  }
  if (lines !== "") yield Buffer.from(lines);
}

async function* walkFiles(place: string, path: string): AsyncGenerator<string> {
  const entries = await readdir(join(place, path), { withFileTypes: true });
  for (const entry of entries) {
    const below = `${path}/${entry.name}`;
    const isLocation = path === "pg_tblspc" && entry.isSymbolicLink();
    if (entry.isDirectory() || isLocation) yield* walkFiles(place, below);
    else yield below;
  }
}
