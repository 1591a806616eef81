import { createHash } from "node:crypto";
import { looksPlain } from "../crypto/appearance.ts";
import { type Crypter, CURRENT_HEAD_BYTES } from "../crypto/crypter.ts";
import { DamagedError, ObjectNotFoundError, OperationError } from "../errors.ts";
import { type ByteSource, type ByteStream, readAll } from "../io/bytes.ts";
import { boundedParallel } from "../io/ordered.ts";
import { EncryptedStorage, type EncryptionRules } from "./encrypted.ts";
import type { CallOptions, ObjectInfo, ObjectKey, Storage } from "./storage.ts";

export interface RekeyOptions extends CallOptions {
  /** Prefixes of everything that may be encrypted. */
  readonly folders: readonly string[];
  /** Prefix for objects on their way. */
  readonly stageFolder: string;
  /** Objects at the same time. */
  readonly jobs: number;
  /** Unfinished segments, too: nothing may write them meanwhile. */
  readonly isPartialTaken: boolean;
  /** Only find out what there is to do. */
  readonly isDryRun: boolean;
  /** Told of each object that was done, or would be. */
  readonly onObject: (info: ObjectInfo) => void;
}

export interface RekeyReport {
  /** Had the key in use already. */
  readonly currentCount: number;
  /** Got it now, or would. */
  readonly changedCount: number;
  readonly changedBytes: number;
  /** Unfinished segments with an older key that were left as they are. */
  readonly partialCount: number;
  /** What could not be read, with the reason; it is as it was. */
  readonly problems: readonly { readonly key: ObjectKey; readonly reason: string }[];
}

/** One object does not stop the others unless the store or the key in use is at fault. */
const OBJECT_FAULTS: ReadonlySet<string> = new Set(["format", "truncated", "damaged", "wrong-key"]);

/**
 * Encrypts every object of `storage` with the key in use that has another one, or none; REKEY.md
 * tells the whole story. May be stopped at any time and run again. Rejects with what the store
 * says.
 */
export async function rekey(
  { storage, rules }: { readonly storage: Storage; readonly rules: EncryptionRules },
  crypter: Crypter,
  options: RekeyOptions,
): Promise<RekeyReport> {
  return await new Rekey(storage, { ...rules, crypter }, options).run();
}

interface Digest {
  readonly sha256: string;
  readonly sizeBytes: number;
}

class Rekey {
  readonly #stored: Storage;
  readonly #crypter: Crypter;
  readonly #rules: EncryptionRules;
  readonly #options: RekeyOptions;
  /** Reads with every key. */
  readonly #any: EncryptedStorage;
  readonly #problems: { readonly key: ObjectKey; readonly reason: string }[] = [];
  #currentCount = 0;
  #changedCount = 0;
  #changedBytes = 0;
  #partialCount = 0;

  constructor(
    stored: Storage,
    rules: EncryptionRules & { readonly crypter: Crypter },
    options: RekeyOptions,
  ) {
    this.#stored = stored;
    this.#crypter = rules.crypter;
    this.#options = options;
    this.#any = new EncryptedStorage(stored, rules);
    this.#rules = rules;
  }

  async run(): Promise<RekeyReport> {
    if (!this.#options.isDryRun) await this.#cleanUp();
    await boundedParallel(
      this.#listSecret(),
      this.#options.jobs,
      (info) => this.#take(info),
      this.#options,
    );
    return {
      currentCount: this.#currentCount,
      changedCount: this.#changedCount,
      changedBytes: this.#changedBytes,
      partialCount: this.#partialCount,
      problems: this.#problems,
    };
  }

  async *#listSecret(): AsyncGenerator<ObjectInfo, void, undefined> {
    for (const folder of this.#options.folders) {
      for await (const info of this.#stored.list(folder, this.#options)) {
        if (this.#rules.isSecret(info.key)) yield info;
      }
    }
  }

  async #take(info: ObjectInfo): Promise<void> {
    try {
      const isCurrent = await this.#isCurrent(info.key);
      if (isCurrent === undefined) return;
      if (isCurrent) {
        this.#currentCount += 1;
        return;
      }
      if (!this.#options.isPartialTaken && /\.partial(\.[a-z0-9]*)?$/.test(info.key)) {
        this.#partialCount += 1;
        return;
      }
      const isChanged = this.#options.isDryRun
        ? await this.#isReadable(info.key)
        : await this.#change(info.key);
      if (!isChanged) return;
      this.#changedCount += 1;
      this.#changedBytes += info.sizeBytes;
      this.#options.onObject(info);
    } catch (error) {
      if (error instanceof ObjectNotFoundError) {
        await this.#stored.delete([this.#stageOf(info.key)], this.#options);
        return;
      }
      if (!(error instanceof OperationError) || !OBJECT_FAULTS.has(error.code)) throw error;
      this.#problems.push({ key: info.key, reason: error.message });
    }
  }

  /** The beginning is enough for a plan: with a wrong key it fails there. */
  async #isReadable(key: ObjectKey): Promise<boolean> {
    const range = { start: 0, end: 1 };
    await readAll(this.#any.get(key, { signal: this.#options.signal, range }));
    return true;
  }

  /** False when the object was gone before it could be replaced. */
  async #change(key: ObjectKey): Promise<boolean> {
    const { signal } = this.#options;
    const stage = this.#stageOf(key);
    const content = new DigestingSource(this.#any.get(key, { signal }));
    await this.#stored.put(
      stage,
      {
        isReopenable: false,
        open: () => this.#crypter.encrypt(content.open(), { name: key, signal }),
      },
      { signal },
    );
    const proved = await this.#readStage(key);
    if (!isSame(proved.content, content.digest())) {
      throw new DamagedError(`object ${stage} in ${this.#stored.name} came back changed`, {
        hint: "Nothing was replaced. The store does not give back what it was given; run it again.",
      });
    }
    const isWanted = (await this.#isCurrent(key)) === false;
    if (isWanted) await this.#replace(key, proved.bytes);
    await this.#stored.delete([stage], { signal });
    return isWanted;
  }

  /** Copies the stage, which has been proved to have these bytes, to its place. */
  async #replace(key: ObjectKey, expected: Digest): Promise<void> {
    const { signal } = this.#options;
    const stage = this.#stageOf(key);
    const body: ByteSource = {
      sizeBytes: expected.sizeBytes,
      isReopenable: true,
      open: () => this.#stored.get(stage, { signal }),
    };
    await this.#stored.put(key, body, { signal });
    const found = await digestOf(this.#stored.get(key, { signal }));
    if (isSame(found, expected)) return;
    throw new DamagedError(`object ${key} in ${this.#stored.name} came back changed`, {
      hint: `A whole copy of it is ${stage}; run \`walnut rekey\` again, which puts it in its place.`,
    });
  }

  /** Undefined for an object that is not there any more. */
  async #isCurrent(key: ObjectKey): Promise<boolean | undefined> {
    const { signal } = this.#options;
    const range = { start: 0, end: CURRENT_HEAD_BYTES };
    try {
      const head = await readAll(this.#stored.get(key, { signal, range }));
      const isCurrent = this.#crypter.recognises(head) && this.#crypter.isCurrent(head);
      return isCurrent === true && looksPlain(key, head) !== true;
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return undefined;
      throw error;
    }
  }

  /** What an earlier run left on its way. */
  async #cleanUp(): Promise<void> {
    const { signal, stageFolder } = this.#options;
    for await (const { key: stage } of this.#stored.list(stageFolder, { signal })) {
      await this.#settle(stage.slice(stageFolder.length));
      await this.#stored.delete([stage], { signal });
    }
  }

  /** An object that took its place may not have been proved: whatever is there must be readable. */
  async #settle(key: ObjectKey): Promise<void> {
    const { signal } = this.#options;
    try {
      await digestOf(this.#any.get(key, { signal }));
    } catch (error) {
      if (error instanceof ObjectNotFoundError) return;
      if (!(error instanceof OperationError) || !OBJECT_FAULTS.has(error.code)) throw error;
      const { bytes } = await this.#readStage(key);
      await this.#replace(key, bytes);
    }
  }

  /** The content of a stage, read with the key in use alone, and its bytes. */
  async #readStage(key: ObjectKey): Promise<{ readonly content: Digest; readonly bytes: Digest }> {
    const { signal } = this.#options;
    const bytes = new DigestingSource(this.#stored.get(this.#stageOf(key), { signal }));
    const content = await digestOf(this.#crypter.decrypt(bytes.open(), { name: key, signal }));
    return { content, bytes: bytes.digest() };
  }

  #stageOf(key: ObjectKey): ObjectKey {
    return `${this.#options.stageFolder}${key}`;
  }
}

/** Bytes that are hashed while they pass, once. */
class DigestingSource {
  readonly #stream: ByteStream;
  readonly #hash = createHash("sha256");
  #sizeBytes = 0;

  constructor(stream: ByteStream) {
    this.#stream = stream;
  }

  async *open(): ByteStream {
    for await (const chunk of this.#stream) {
      this.#hash.update(chunk);
      this.#sizeBytes += chunk.length;
      yield chunk;
    }
  }

  /** When all has passed. */
  digest(): Digest {
    return { sha256: this.#hash.digest("hex"), sizeBytes: this.#sizeBytes };
  }
}

async function digestOf(stream: ByteStream): Promise<Digest> {
  const source = new DigestingSource(stream);
  for await (const chunk of source.open()) void chunk;
  return source.digest();
}

function isSame(one: Digest, other: Digest): boolean {
  return one.sha256 === other.sha256 && one.sizeBytes === other.sizeBytes;
}
