import { DatabaseError, FormatError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { createHasher, type Hasher } from "../io/hash.ts";
import type { ServerManifestHash } from "../connection/backup-stream.ts";
import { BackupManifestReader } from "../postgres/backup-manifest.ts";
import { Crc32c } from "../postgres/crc32c.ts";
import { BaseFiles } from "./known-files.ts";
import type { Spool } from "./spool.ts";

const MAX_LINE_LENGTH = 64 * 1024;

/** Hash of one file after the other, as the server writes it into its manifest. */
export class ContentHash {
  readonly #sha256: Hasher | undefined;
  readonly #crc = new Crc32c();
  #sum = Crc32c.start;

  /** Without a hasher: CRC-32C. */
  constructor(sha256?: Hasher) {
    this.#sha256 = sha256;
  }

  update(bytes: Uint8Array): void {
    if (this.#sha256 !== undefined) this.#sha256.update(bytes);
    else {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      this.#sum = this.#crc.update(this.#sum, view, 0, bytes.length);
    }
  }

  digest(): string {
    if (this.#sha256 !== undefined) return this.#sha256.digest();
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(Crc32c.finish(this.#sum));
    this.#sum = Crc32c.start;
    return bytes.toString("hex");
  }
}

/**
 * Compares what a server sent with the manifest that it sends behind it: every file with its size
 * and hash, none more and none less. Files are kept as a few bytes each.
 */
export class ServerManifestCheck {
  readonly #content: ContentHash;
  readonly #seen: BaseFiles;
  readonly #own: Hasher;
  #seenCount = 0;

  private constructor(content: ContentHash, seen: BaseFiles, own: Hasher) {
    this.#content = content;
    this.#seen = seen;
    this.#own = own;
  }

  static async create(hash: ServerManifestHash): Promise<ServerManifestCheck> {
    const isSha256 = hash === "SHA256";
    const content = new ContentHash(isSha256 ? await createHasher("sha256") : undefined);
    const seen = await BaseFiles.create(isSha256 ? "sha256" : "xxh64");
    return new ServerManifestCheck(content, seen, await createHasher("sha256"));
  }

  /** Hashes the content of a file on its way; the next file comes when it is read to its end. */
  async *observed(path: string, sizeBytes: number, content: ByteStream): ByteStream {
    for await (const chunk of content) {
      this.#content.update(chunk);
      yield chunk;
    }
    this.#seen.add(path, { sizeBytes, hash: paddedHash(this.#content.digest()) });
    this.#seenCount += 1;
  }

  /**
   * Reads the manifest, which is kept in `kept`. Rejects with DatabaseError when it and what came
   * before disagree.
   */
  async compare(manifest: ByteStream, kept: Spool): Promise<void> {
    const reader = new BackupManifestReader();
    for await (const line of linesOf(manifest)) {
      kept.append(`${line}\n`);
      if (!BackupManifestReader.isChecksumLine(line)) this.#own.update(Buffer.from(`${line}\n`));
      const item = reader.takeLine(line);
      if (item === undefined) continue;
      if ("path" in item) {
        const found = this.#seen.find(item.path);
        const isSame =
          found?.sizeBytes === item.sizeBytes && found.hash === paddedHash(item.checksum ?? "");
        if (!isSame) throw damaged(`${item.path} is not as the server's manifest says`);
      } else if (this.#own.digest() !== item.manifestSha256) {
        throw damaged("the server's manifest does not have its own checksum");
      }
    }
    reader.finish();
    if (reader.fileCount === this.#seenCount) return;
    throw damaged(`${this.#seenCount} files came, the server's manifest has ${reader.fileCount}`);
  }
}

/** CRC-32C in as many digits as a BaseFiles keeps. */
function paddedHash(hash: string): string {
  return hash.length === 8 ? hash.padStart(16, "0") : hash;
}

function damaged(what: string): DatabaseError {
  return new DatabaseError(`the backup was damaged on its way here: ${what}`, {
    hint: "Take it again. If that does not help, check the network and the memory of both hosts.",
  });
}

async function* linesOf(stream: ByteStream): AsyncGenerator<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoded(decoder, chunk)).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > MAX_LINE_LENGTH) {
      throw new FormatError("backup_manifest has a line that is too long");
    }
    yield* lines;
  }
  if (rest !== "") throw new FormatError("backup_manifest ends within a line");
}

function decoded(decoder: TextDecoder, chunk: Uint8Array): string {
  try {
    return decoder.decode(chunk, { stream: true });
  } catch (error) {
    throw new FormatError("backup_manifest is not UTF-8", { cause: error });
  }
}
