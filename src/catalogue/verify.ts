import { readRepositoryIdentity } from "../archive/identity.ts";
import type { BackupDocuments } from "../backup/backup-documents.ts";
import { FormatError, StorageAccessError, StorageError } from "../errors.ts";
import type { Clock } from "../io/clock.ts";
import { createHasher, type Hasher } from "../io/hash.ts";
import type { BackupName } from "../layout/backup-name.ts";
import {
  identityKey,
  parsePartKey,
  QUARANTINE_FOLDER,
  sentinelKey,
  tarFolder,
  verifyMemoryKey,
} from "../layout/keys.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";
import { type Catalogue, type CatalogueBackup, readCatalogue } from "./catalogue.ts";
import { describeCollisions, readCollisions } from "./collisions.ts";
import { CommitIndex } from "./commit-index.ts";
import { DocumentsShelf } from "./documents-shelf.ts";
import { HasherPool } from "./hasher-pool.ts";
import { faultText, type Finding } from "./finding.ts";
import { markOf } from "./object-marks.ts";
import { UnfinishedHashes } from "./unfinished-hashes.ts";
import { verifyDocuments } from "./verify-documents.ts";
import { MarkCheck, type MarkCounts } from "./verify-marks.ts";
import {
  addPartProof,
  addProof,
  NOTHING_PROVED,
  type ProvedBackup,
  type ProvedRun,
  readVerifyMemory,
  type StoredHash,
  type VerifyMemory,
  writeVerifyMemory,
} from "./verify-memory.ts";
import { judgeNames } from "./verify-names.ts";
import { type PartItem, verifyParts } from "./verify-parts.ts";
import {
  chooseSample,
  keysOfItem,
  oldestProof,
  sumBytes,
  TimeBudget,
  type VerifyItem,
} from "./verify-plan.ts";
import { verifySmallObjects } from "./verify-small.ts";
import { verifyWal, walItems } from "./verify-wal.ts";
import { planWindows, type TimelinePlan } from "./wal-windows.ts";
import { type WalView, walView } from "./wal-view.ts";

/**
 * How much is read.
 *
 * - "quick": names, sizes, the store's checksums and the documents of the backups; of parts and
 *   segments only those that changed since they were read, within the budget.
 * - "sample": the same, and parts and segments within the budget, the longest unproved first.
 * - "full": everything.
 */
export type VerifyLevel = "quick" | "sample" | "full";

export interface VerifyOptions extends CallOptions {
  readonly level: VerifyLevel;
  /** Of "quick" and "sample": stored bytes to read... */
  readonly budgetBytes?: number | undefined;
  /** ... and, of "sample", when to begin nothing more. */
  readonly budgetMs?: number | undefined;
  /** Objects read at the same time. */
  readonly jobs: number;
  readonly codecJobs: number;
  /** Take objects that are sound but not as they were for the new truth. */
  readonly isRelearning: boolean;
  /** Of parts and segments only the items with one of these keys; nothing is remembered. */
  readonly only?: ReadonlySet<ObjectKey> | undefined;
  readonly clock: Clock;
  readonly onProgress: (state: { readonly doneBytes: number; readonly totalBytes: number }) => void;
}

export interface VerifyReport {
  readonly level: VerifyLevel;
  readonly startedAtMs: number;
  readonly findings: readonly Finding[];
  /** What was read, and what there is. */
  readonly read: { readonly objects: number; readonly bytes: number };
  readonly there: { readonly items: number; readonly bytes: number };
  readonly marks: MarkCounts;
  /** Proof that is older, for what was not read this time: the oldest, 0 = never. */
  readonly oldestProofMs: number | undefined;
  readonly catalogue: Catalogue;
  readonly plans: readonly TimelinePlan[];
}

/** Checks a repository as the level says. A store that fails or is empty rejects, damage never. */
export async function verifyRepository(
  storage: Storage,
  options: VerifyOptions,
): Promise<VerifyReport> {
  return await new Verification(storage, options, await createHasher("xxh64")).run();
}

interface PartChecks {
  readonly marks: MarkCheck;
  readonly time: TimeBudget;
  readonly shelf: DocumentsShelf;
}

class Verification {
  readonly #storage: Storage;
  readonly #options: VerifyOptions;
  readonly #hasher: Hasher;
  readonly #hashers = new HasherPool();
  readonly #findings: Finding[] = [];
  /** Of backups with our manifest. */
  readonly #partCounts = new Map<BackupName, number>();
  readonly #documents = new Map<ObjectKey, StoredHash>();
  readonly #provedParts = new Map<BackupName, string[]>();
  #provedWal: readonly ProvedRun[] = [];
  #unfinished = new UnfinishedHashes(new Map());
  #memory: VerifyMemory = NOTHING_PROVED;
  #readBytes = 0;
  #readObjects = 0;
  #totalBytes = 0;

  constructor(storage: Storage, options: VerifyOptions, hasher: Hasher) {
    this.#storage = storage;
    this.#options = options;
    this.#hasher = hasher;
  }

  async run(): Promise<VerifyReport> {
    const { clock, level, only } = this.#options;
    const startedAtMs = clock.now();
    await this.#readMemory();
    const catalogue = await readCatalogue(this.#storage, this.#options);
    const view = walView(catalogue);
    const plans = planWindows(view, catalogue.backups);
    this.#findings.push(...judgeNames(catalogue, plans, view));
    const systemId = await this.#readIdentity(catalogue);
    const shelf = new DocumentsShelf(this.#storage, catalogue.backups, {
      jobs: this.#options.jobs,
      onFault: (name, error) => this.#add("damaged", sentinelKey(name), faultText(error), name),
    });
    const parts = await this.#checkBackups(catalogue, shelf);
    await this.#checkSmallObjects(catalogue);
    await this.#noteCollisions(catalogue);

    const items = [...walItems(catalogue, view), ...parts];
    const marks = new MarkCheck(this.#memory.marks, catalogue.wal, view.segmentBytes);
    const suspects = marks.compare(items);
    const chosen =
      only === undefined
        ? this.#choose(items, suspects)
        : items.filter((item) => keysOfItem(item, catalogue).some((key) => only.has(key)));
    this.#totalBytes = sumBytes(chosen);
    const time = new TimeBudget(this.#options, startedAtMs);
    for (const batch of time.batches(chosen, this.#options.jobs)) {
      await this.#checkParts(batch, { marks, time, shelf });
      await this.#checkWal({ catalogue, view, systemId, marks }, batch, time);
    }
    for (const { subject } of this.#findings) {
      marks.settle(subject);
      // What is wrong is not held against what takes its place.
      if (!this.#memory.documents.has(subject)) this.#documents.delete(subject);
    }
    this.#findings.push(...marks.finding);
    const proofs = this.#newMemory(catalogue, startedAtMs);
    const memory = { ...proofs, marks: marks.remembered(items) };
    const isRemembered = only === undefined && (level !== "quick" || chosen.length > 0);
    if (isRemembered) await this.#writeMemory(memory);
    return {
      level,
      startedAtMs,
      findings: this.#findings,
      read: { objects: this.#readObjects, bytes: this.#readBytes },
      there: { items: items.length, bytes: sumBytes(items) },
      marks: marks.counts,
      oldestProofMs: oldestProof(items, memory),
      catalogue,
      plans,
    };
  }

  async #readMemory(): Promise<void> {
    try {
      this.#memory = await readVerifyMemory(this.#storage, this.#hasher, this.#options);
      this.#unfinished = new UnfinishedHashes(this.#memory.documents);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      this.#add("damaged", verifyMemoryKey, `${error.message}; it is written anew`);
    }
  }

  async #readIdentity(catalogue: Catalogue): Promise<bigint | undefined> {
    let systemId: bigint | undefined;
    try {
      systemId = await readRepositoryIdentity(this.#storage, this.#options);
    } catch (error) {
      this.#options.signal.throwIfAborted();
      this.#add("damaged", identityKey, faultText(error));
    }
    const [first] = catalogue.backups.flatMap(({ systemId: own }) => own ?? []);
    const expected = systemId ?? first;
    for (const { name, systemId: own } of catalogue.backups) {
      if (own === undefined || own === expected) continue;
      this.#add("damaged", name, `it is of cluster ${own}, not of ${expected}`, name);
    }
    return expected;
  }

  /** Reads the documents of all backups and compares the list of parts; gives the parts. */
  async #checkBackups(
    { backups }: Catalogue,
    shelf: DocumentsShelf,
  ): Promise<readonly VerifyItem[]> {
    const parts = new Map<BackupName, readonly VerifyItem[]>();
    const check = async ({ name, folder }: CatalogueBackup, { signal }: CallOptions) => {
      const verdict = await this.#hashers.use("xxh64", (hasher) =>
        verifyDocuments(this.#storage, name, { hasher, signal, folder }),
      );
      this.#findings.push(...verdict.findings);
      for (const [key, hash] of verdict.hashes) this.#compareHash(key, hash, name);
      this.#readObjects += verdict.hashes.size;
      if (verdict.documents === undefined) return;
      const { documents } = verdict;
      if (documents.manifest !== undefined) {
        this.#partCounts.set(name, documents.manifest.parts.size);
      }
      parts.set(name, await this.#listParts(documents, signal));
      shelf.offer(documents);
    };
    await shelf.forEach(backups, check, this.#options);
    return backups.flatMap(({ name }) => parts.get(name) ?? []);
  }

  async #listParts(
    { name, manifest }: BackupDocuments,
    signal: AbortSignal,
  ): Promise<readonly VerifyItem[]> {
    const items: Extract<VerifyItem, { kind: "part" }>[] = [];
    for await (const object of this.#storage.list(tarFolder(name), { signal })) {
      const part = parsePartKey(object.key)?.name;
      if (part === undefined) continue;
      const { sizeBytes } = object;
      const [place, mark] = [items.length, markOf(object)];
      items.push({ kind: "part", backup: name, part, sizeBytes, place, mark });
    }
    const found = new Map(items.map(({ part, sizeBytes }) => [part, sizeBytes]));
    for (const [part, promised] of manifest?.parts ?? []) {
      const storedBytes = found.get(part);
      const key = `${tarFolder(name)}${part}`;
      if (storedBytes === undefined) {
        this.#add("missing", key, "the manifest lists it", name);
        continue;
      }
      const storage = this.#storage;
      // Encryption makes an object longer; the manifest counts what is in it.
      const sizeBytes =
        storage.readableBytes === undefined
          ? storedBytes
          : (storage.readableBytes(key, storedBytes) ?? promised.sizeBytes);
      if (sizeBytes !== promised.sizeBytes) {
        const text = `it has ${sizeBytes} bytes, the manifest says ${promised.sizeBytes}`;
        this.#add("damaged", key, text, name);
      }
    }
    // What the manifest does not list, a restore does not read.
    return manifest === undefined ? items : items.filter(({ part }) => manifest.parts.has(part));
  }

  async #checkSmallObjects(catalogue: Catalogue): Promise<void> {
    const options = { ...this.#options, hasher: this.#hasher };
    const objects = { catalogue, hasNumerous: this.#options.level === "full" };
    const verdict = await verifySmallObjects(this.#storage, objects, options);
    this.#findings.push(...verdict.findings);
    this.#readObjects += verdict.hashes.size;
    for (const [key, hash] of verdict.hashes) {
      if (verdict.vouchedFor.has(key)) this.#documents.set(key, hash);
      else this.#compareHash(key, hash, undefined);
    }
  }

  /** No fault of the archive: what is archived is read with everything else. */
  async #noteCollisions({ ownKeys }: Catalogue): Promise<void> {
    const collisions = await readCollisions(this.#storage, ownKeys, this.#options);
    for (const text of describeCollisions(collisions)) {
      this.#add("note", QUARANTINE_FOLDER, `${text}; docs/failover.md tells what to do`);
    }
  }

  /** What never changes is as it was when it was first read. */
  #compareHash(key: ObjectKey, hash: StoredHash, backup: BackupName | undefined): void {
    const known = this.#memory.documents.get(key);
    const isSame = known === undefined || known.xxh64 === hash.xxh64;
    if (isSame || this.#options.isRelearning) return void this.#documents.set(key, hash);
    this.#documents.set(key, known);
    this.#add("damaged", key, "it is not what an earlier verify read", backup);
  }

  #choose(items: readonly VerifyItem[], suspects: ReadonlySet<VerifyItem>): readonly VerifyItem[] {
    const { level, budgetBytes = Number.POSITIVE_INFINITY } = this.#options;
    if (level === "full") return items;
    const candidates = level === "quick" ? [...suspects] : items;
    return chooseSample(candidates, { memory: this.#memory, suspects }, budgetBytes);
  }

  async #checkParts(
    chosen: readonly VerifyItem[],
    { marks, time, shelf }: PartChecks,
  ): Promise<void> {
    const onChecked = (item: PartItem, key: ObjectKey, fault: string | undefined): void => {
      const { backup, part } = item;
      this.#readObjects += 1;
      if (fault !== undefined) return this.#add("damaged", key, fault, backup);
      marks.learnPart(item);
      marks.settle(key);
      this.#provedParts.set(backup, [...(this.#provedParts.get(backup) ?? []), part]);
    };
    const parts = chosen.filter((item) => item.kind === "part");
    await verifyParts(this.#storage, parts, {
      ...this.#options,
      shelf,
      hashers: this.#hashers,
      mayBegin: () => time.mayBegin(),
      onBytes: this.#onBytes,
      onChecked,
    });
  }

  async #checkWal(
    place: {
      readonly catalogue: Catalogue;
      readonly view: WalView;
      readonly systemId: bigint | undefined;
      readonly marks: MarkCheck;
    },
    chosen: readonly VerifyItem[],
    time: TimeBudget,
  ): Promise<void> {
    const { signal } = this.#options;
    const hasher = await this.#hashers.take("xxh64");
    const index = new CommitIndex(this.#storage, place.view.segmentBytes, { hasher, signal });
    index.onDamage = (key, reason) => {
      if (this.#findings.some(({ subject }) => subject === key)) return;
      this.#add("damaged", key, `${reason}; it is written anew`);
    };
    const result = await verifyWal(this.#storage, place, {
      ...this.#options,
      hashers: this.#hashers,
      unfinished: this.#unfinished,
      items: chosen.filter((item) => item.kind === "wal"),
      index,
      atMs: time.startedAtMs,
      mayBegin: () => time.mayBegin(),
      onBytes: this.#onBytes,
      onSound: (row) => {
        place.marks.learnSegment(row);
        place.marks.settle(place.catalogue.wal.keyAt(row));
      },
    });
    this.#findings.push(...result.findings);
    this.#readObjects += result.objectCount;
    this.#provedWal = [...this.#provedWal, ...result.proved];
    this.#hashers.give(hasher);
  }

  readonly #onBytes = (count: number): void => {
    this.#readBytes += count;
    this.#options.onProgress({ doneBytes: this.#readBytes, totalBytes: this.#totalBytes });
  };

  #newMemory({ backups, wal }: Catalogue, atMs: number): Omit<VerifyMemory, "marks"> {
    const proved = new Map<BackupName, ProvedBackup>();
    for (const { name } of backups) {
      const fresh = this.#provedParts.get(name) ?? [];
      const partCount = this.#partCounts.get(name);
      const proof = addPartProof(this.#memory.backups.get(name), fresh, { partCount, atMs });
      if (proof !== undefined) proved.set(name, proof);
    }
    const documents = new Map([...this.#documents, ...this.#unfinished.remembered(wal)]);
    return { documents, backups: proved, wal: addProof(this.#memory.wal, this.#provedWal) };
  }

  /**
   * Proof that can't be kept is proved again next time: a store that is read only, or full, is no
   * damage.
   */
  async #writeMemory(memory: VerifyMemory): Promise<void> {
    const { signal } = this.#options;
    try {
      await writeVerifyMemory(this.#storage, memory, { hasher: this.#hasher, signal });
    } catch (error) {
      if (!(error instanceof StorageAccessError || error instanceof StorageError)) throw error;
      this.#add("note", verifyMemoryKey, `what was proved can't be kept: ${error.message}`);
    }
  }

  #add(kind: Finding["kind"], subject: string, text: string, backup?: BackupName): void {
    this.#findings.push({ kind, subject, text, ...(backup === undefined ? {} : { backup }) });
  }
}
