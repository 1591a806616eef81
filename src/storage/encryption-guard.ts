import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describeEncryption, looksPlain } from "../crypto/appearance.ts";
import { type Crypter, HEAD_BYTES } from "../crypto/crypter.ts";
import { ConfigError, ObjectExistsError, ObjectNotFoundError } from "../errors.ts";
import { bytesSource, readAll } from "../io/bytes.ts";
import { writeCacheFile } from "../io/cache-file.ts";
import type { Log } from "../io/log.ts";
import type { EncryptionGuard } from "./encrypted.ts";
import type { CallOptions, ObjectKey, Storage } from "./storage.ts";

export interface GuardOptions {
  /** Absent where nothing is encrypted. */
  readonly crypter?: Crypter | undefined;
  /** Of the object that says that a repository is encrypted, and of what it could be asked of. */
  readonly markKey: ObjectKey;
  readonly sampleFolder: string;
  /** What is kept here saves requests and may be lost. */
  readonly cacheDirectory: string;
  /** The user has said that plain objects are wanted, whatever is there. */
  readonly isPlainWritten: boolean;
  readonly log: Log;
}

const MARK_BYTES_MAX = 64 * 1024;
const PLAIN = "plain";

/**
 * Marks a repository that gets its first encrypted object, and refuses to put plain ones into a
 * marked one, or one whose objects look encrypted: somebody lost a setting. What was found out is
 * kept in the cache directory, so that this costs requests only once.
 */
export class MarkedRepository implements EncryptionGuard {
  readonly #options: GuardOptions;
  #checking: Promise<void> | undefined;

  constructor(options: GuardOptions) {
    this.#options = options;
  }

  async beforePut(storage: Storage, options: CallOptions): Promise<void> {
    if (this.#options.isPlainWritten) return;
    this.#checking ??= this.#check(storage, options);
    try {
      await this.#checking;
    } catch (error) {
      this.#checking = undefined;
      throw error;
    }
  }

  async #check(storage: Storage, options: CallOptions): Promise<void> {
    const { crypter } = this.#options;
    const wanted = crypter === undefined ? PLAIN : describe(crypter);
    if ((await this.#recall(storage)) === wanted) return;
    if (crypter === undefined) await this.#requirePlain(storage, options);
    else await this.#mark(storage, crypter, options);
    await this.#remember(storage, wanted);
  }

  async #requirePlain(storage: Storage, options: CallOptions): Promise<void> {
    const mark = await this.#readMark(storage, options);
    if (mark !== undefined) throw refusal(storage, `object ${this.#options.markKey} says so`);
    const sample = await this.#findEncrypted(storage, options);
    if (sample !== undefined) throw refusal(storage, `object ${sample} is no plain one`);
  }

  /** Of repositories that WAL-G made: the first object that can tell is asked. */
  async #findEncrypted(storage: Storage, options: CallOptions): Promise<ObjectKey | undefined> {
    for await (const { key, sizeBytes } of storage.list(this.#options.sampleFolder, options)) {
      if (sizeBytes === 0 || key.endsWith(".json")) continue;
      const range = { start: 0, end: HEAD_BYTES };
      const head = await readAll(storage.get(key, { ...options, range }));
      const isPlain = looksPlain(key, head);
      const isEncrypted = isPlain === false || (isPlain !== true && describeEncryption(head));
      return isEncrypted ? key : undefined;
    }
    return undefined;
  }

  async #mark(storage: Storage, crypter: Crypter, options: CallOptions): Promise<void> {
    const body = bytesSource(Buffer.from(formatMark(crypter)));
    try {
      await storage.put(this.#options.markKey, body, { ...options, ifAbsent: true });
    } catch (error) {
      if (!(error instanceof ObjectExistsError)) throw error;
    }
  }

  async #readMark(storage: Storage, options: CallOptions): Promise<string | undefined> {
    try {
      const mark = await readAll(storage.get(this.#options.markKey, options), MARK_BYTES_MAX);
      return mark.toString("utf8");
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return undefined;
      throw error;
    }
  }

  async #recall(storage: Storage): Promise<string | undefined> {
    try {
      const fields: unknown = JSON.parse(await readFile(this.#cachePath(storage), "utf8"));
      if (typeof fields !== "object" || fields === null) return undefined;
      const isOurs = "storage" in fields && fields.storage === storage.name;
      return isOurs && "state" in fields ? String(fields.state) : undefined;
    } catch {
      // Nothing is lost: the store is asked.
      return undefined;
    }
  }

  async #remember(storage: Storage, state: string): Promise<void> {
    const { log } = this.#options;
    const path = this.#cachePath(storage);
    try {
      await writeCacheFile(path, `${JSON.stringify({ storage: storage.name, state })}\n`);
    } catch (error) {
      log.debug("it is not remembered whether the repository is encrypted", {
        path,
        reason: error instanceof Error ? error.message : String(error),
      });
    }
  }

  #cachePath({ name }: Storage): string {
    const hash = createHash("sha256").update(name).digest("hex").slice(0, 16);
    return join(this.#options.cacheDirectory, `encryption-${hash}.json`);
  }
}

/** The content of the object that says how a repository is encrypted. */
export function formatMark({
  kind,
  ownKeyIds,
}: {
  readonly kind: string;
  readonly ownKeyIds: readonly string[];
}): string {
  return `${JSON.stringify({ walnut: 1, method: kind, key_ids: ownKeyIds })}\n`;
}

function describe({ kind, ownKeyIds }: Crypter): string {
  return `${kind} ${ownKeyIds.join(" ")}`;
}

function refusal(storage: Storage, why: string): ConfigError {
  return new ConfigError(
    `${storage.name} holds encrypted objects (${why}), and no key is configured to encrypt with`,
    {
      hint:
        "Nothing was stored. Set the key as it was set before: WALG_LIBSODIUM_KEY_PATH, " +
        "WALG_PGP_KEY_PATH or WALG_CSE_KMS_ID. If it shall go on in plain text, set " +
        "WALNUT_WRITE_UNENCRYPTED=true.",
    },
  );
}
