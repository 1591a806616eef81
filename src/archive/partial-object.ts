import type { Codec } from "../codec/codec.ts";
import { vouching } from "../codec/table.ts";
import { FormatError, TruncatedError } from "../errors.ts";
import type { ByteSource } from "../io/bytes.ts";
import { walKey } from "../layout/keys.ts";
import { WalWalker } from "../postgres/wal-record.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";
import { type DeadlineScope, withinDeadline } from "./deadline.ts";
import { movingStorage } from "./moving-storage.ts";
import { type PackOptions, PartialPacker } from "./partial-packer.ts";
import { type PartialDifference, relatePartial } from "./partial-relation.ts";
import { listStoredWal, readStoredWal, type StoredWal } from "./stored-wal.ts";
import type { WalSpool } from "./wal-spool.ts";

/** How an attempt to store what was received ended. */
export type ShipOutcome =
  /** The store holds at least so much of the segment. */
  | { readonly kind: "stored" }
  /** Nothing was written: the object in the store has more (so many bytes), or other records. */
  | { readonly kind: "ahead"; readonly storedEnd: number; readonly key: ObjectKey }
  | { readonly kind: "different"; readonly key: ObjectKey };

/** How the object is made. */
export interface PartialOptions extends PackOptions {
  /** One that has no checksum is not used: a flipped bit in the last record would hide it. */
  readonly codec: Codec;
  /** For one attempt to store or remove it. */
  readonly timeoutMs: number;
}

/** The object `X.partial` of a segment that is being received. */
export class PartialObject {
  readonly #storage: Storage;
  readonly #spool: WalSpool;
  readonly #options: PartialOptions;
  readonly #packer: PartialPacker;
  readonly #key: ObjectKey;
  /** Other objects of this name, in other compressions, whose content we have. */
  #covered: ObjectKey[] = [];
  /** Whether we know what was there before us. */
  #isChecked = false;

  constructor(storage: Storage, spool: WalSpool, options: PartialOptions) {
    this.#storage = storage;
    this.#spool = spool;
    this.#options = options;
    const pack = vouching(options);
    this.#packer = new PartialPacker(spool, pack);
    this.#key = walKey(this.#name, pack.codec.extension);
  }

  get #name(): string {
    return `${this.#spool.name}.partial`;
  }

  /** Stores the first `endBytes`; never less than the store has already. */
  async ship(endBytes: number, options: CallOptions): Promise<ShipOutcome> {
    const { timeoutMs } = this.#options;
    return await withinDeadline({ timeoutMs, ...options }, async (scope) => {
      if (!this.#isChecked) {
        const found = await this.#check(scope);
        if (found !== undefined) return found;
      }
      scope.begin(`storing ${this.#key} in ${this.#storage.name}`);
      const storage = movingStorage(this.#storage, scope);
      await storage.put(this.#key, this.#body(endBytes, scope), { signal: scope.signal });
      // Only now is their content safe under our key.
      await this.#delete(this.#covered, scope);
      this.#covered = [];
      return { kind: "stored" };
    });
  }

  /**
   * Removes what the complete segment, now stored, has made needless. Gives the keys it had to
   * keep.
   */
  async remove(options: CallOptions): Promise<readonly ObjectKey[]> {
    const { timeoutMs } = this.#options;
    return await withinDeadline({ timeoutMs, ...options }, async (scope) => {
      const found = this.#isChecked ? undefined : await this.#check(scope);
      const kept = found === undefined || found.kind === "stored" ? [] : [found.key];
      const keys = this.#isChecked ? [this.#key, ...this.#covered] : this.#covered;
      await this.#delete(keys, scope);
      return kept;
    });
  }

  /** Gives what stands in the way of writing; nothing does when it returns undefined. */
  async #check(scope: DeadlineScope): Promise<ShipOutcome | undefined> {
    scope.begin(`listing the objects of ${this.#name} in ${this.#storage.name}`);
    const covered: ObjectKey[] = [];
    for (const stored of await listStoredWal(this.#storage, this.#name, scope)) {
      scope.begin(`comparing ${stored.key} in ${this.#storage.name}`);
      const difference = await this.#compare(stored, scope);
      const { key } = stored;
      const relation = relatePartial(difference);
      if (relation === "ahead") return { kind: "ahead", storedEnd: difference.storedEnd, key };
      if (relation === "different") return { kind: "different", key };
      covered.push(key);
    }
    this.#covered = covered.filter((key) => key !== this.#key);
    this.#isChecked = true;
    return undefined;
  }

  async #compare(stored: StoredWal, { signal }: CallOptions): Promise<PartialDifference> {
    const { receivedBytes, segmentBytes } = this.#spool;
    const { codecJobs } = this.#options;
    const walker = new WalWalker(this.#name);
    const ours = new SpoolCursor(this.#spool, receivedBytes, { signal });
    let differsAt: number | undefined;
    let position = 0;
    try {
      for await (const chunk of readStoredWal(this.#storage, stored, { codecJobs, signal })) {
        walker.push(chunk);
        if (differsAt === undefined) {
          const difference = await ours.firstDifference(chunk);
          if (difference >= 0) differsAt = position + difference;
        }
        position += chunk.length;
      }
      const storedEnd = walker.finish().endOfRecords;
      if (position !== segmentBytes) differsAt ??= position;
      return { differsAt, storedEnd, otherEnd: receivedBytes };
    } catch (error) {
      // Nobody can use an object that is empty or cut off.
      if (error instanceof TruncatedError)
        return { differsAt: 0, storedEnd: 0, otherEnd: receivedBytes };
      // Something else lies there, perhaps damaged; a person has to look at it.
      if (error instanceof FormatError) return { differsAt: 0, storedEnd: 1, otherEnd: 1 };
      throw error;
    }
  }

  #body(endBytes: number, { signal }: CallOptions): ByteSource {
    return { isReopenable: true, open: () => this.#packer.pack(endBytes, { signal }) };
  }

  async #delete(keys: readonly ObjectKey[], scope: DeadlineScope): Promise<void> {
    if (keys.length === 0) return;
    scope.begin(`deleting ${keys.join(", ")} from ${this.#storage.name}`);
    await this.#storage.delete(keys, { signal: scope.signal });
  }
}

/** Reads what was received, padded, beside another stream of the same length. */
class SpoolCursor {
  readonly #iterator: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array();

  constructor(spool: WalSpool, endBytes: number, options: CallOptions) {
    this.#iterator = spool.read(endBytes, options)[Symbol.asyncIterator]();
  }

  /** Offset in `other` of the first byte that is not ours; -1 if there is none. */
  async firstDifference(other: Uint8Array): Promise<number> {
    let at = 0;
    while (at < other.length) {
      if (this.#chunk.length === 0) {
        const next = await this.#iterator.next();
        if (next.done === true) return at;
        this.#chunk = next.value;
      }
      const size = Math.min(this.#chunk.length, other.length - at);
      const ours = this.#chunk.subarray(0, size);
      const theirs = other.subarray(at, at + size);
      if (Buffer.compare(ours, theirs) !== 0) {
        return at + ours.findIndex((byte, index) => byte !== theirs[index]);
      }
      this.#chunk = this.#chunk.subarray(size);
      at += size;
    }
    return -1;
  }
}
