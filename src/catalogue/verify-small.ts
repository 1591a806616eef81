import { HISTORY_BYTES_MAX } from "../archive/local-wal.ts";
import { readStoredWal, type StoredWal } from "../archive/stored-wal.ts";
import { nodeCrypto } from "../io/builtin.ts";
import { readAll } from "../io/bytes.ts";
import type { Hasher } from "../io/hash.ts";
import { parseChangeMap } from "../layout/change-map.ts";
import { CREATE_ONLY_KEY } from "../layout/backup-group.ts";
import { contentSumKey, parseContentSum, parseContentSumKey } from "../layout/content-sum.ts";
import { parseJson } from "../layout/json.ts";
import {
  CHANGES_FOLDER,
  COMMIT_INDEX_FOLDER,
  parseChangeMapKey,
  parseQuarantinedKey,
  parseWalKey,
  verifyMemoryKey,
} from "../layout/keys.ts";
import { ENCRYPTION_MARK_KEY } from "../layout/secrecy.ts";
import { parseWalDelta } from "../layout/wal-delta.ts";
import { parseBackupHistory } from "../postgres/backup-label.ts";
import { formatMark } from "../storage/encryption-guard.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";
import type { Catalogue } from "./catalogue.ts";
import { parseGroup } from "./commit-index.ts";
import { faultText, type Finding } from "./finding.ts";
import { hashObject } from "./verify-documents.ts";
import type { StoredHash } from "./verify-memory.ts";
import type { WalObjects } from "./wal-objects.ts";

const SMALL_BYTES_MAX = 16 * 1024 * 1024;
/** Of 16 segments that changed as many blocks as they can. */
const CHANGES_BYTES_MAX = 1024 * 1024 * 1024;
/** Of our own, those that others rewrite. */
const CHANGING = /^walnut_005\/(writers|index|locks)\//;
/** Of our own, those that may be lost or written over at any time. */
const UNCHECKED: readonly string[] = [verifyMemoryKey, CREATE_ONLY_KEY];
/** Of our own, those of which there is one for every few segments: too many to read each time. */
const NUMEROUS: readonly string[] = [COMMIT_INDEX_FOLDER, CHANGES_FOLDER];

export interface SmallVerdict {
  readonly findings: readonly Finding[];
  readonly hashes: ReadonlyMap<ObjectKey, StoredHash>;
  /** Of those: what is right by itself, whatever it was before. */
  readonly vouchedFor: ReadonlySet<ObjectKey>;
}

/**
 * Reads histories, notes of backups in the WAL folder and our own objects; those of which there are
 * many (indexes of commits, change maps, WAL-G's deltas) only if told.
 */
export async function verifySmallObjects(
  storage: Storage,
  { catalogue, hasNumerous }: { readonly catalogue: Catalogue; readonly hasNumerous: boolean },
  options: CallOptions & { readonly hasher: Hasher },
): Promise<SmallVerdict> {
  const check = new SmallCheck(storage, catalogue, options);
  for (const { key, problem } of catalogue.histories) {
    // What can't be read is reported already.
    if (problem !== undefined) continue;
    await check.text(stored(key));
    await check.remember(key);
  }
  await checkWalFolder(check, catalogue.wal, hasNumerous);
  for (const key of catalogue.ownKeys) {
    const isNumerous = NUMEROUS.some((folder) => key.startsWith(folder));
    if (UNCHECKED.includes(key) || (isNumerous && !hasNumerous)) continue;
    await check.own(key);
    if (!CHANGING.test(key)) await check.remember(key);
  }
  if (catalogue.ownKeys.includes(ENCRYPTION_MARK_KEY)) await check.mark();
  return check;
}

async function checkWalFolder(
  check: SmallCheck,
  wal: WalObjects,
  hasNumerous: boolean,
): Promise<void> {
  for (let row = 0; row < wal.count; row += 1) {
    const kind = wal.kindAt(row);
    const isChecked = kind === "backup-label" || (hasNumerous && kind === "delta");
    if (!isChecked) continue;
    const object = { key: wal.keyAt(row), extension: wal.extensionAt(row) };
    await (kind === "delta" ? check.delta(object) : check.label(object));
    await check.remember(object.key);
  }
}

function stored(key: ObjectKey): StoredWal {
  return { key, extension: parseWalKey(key)?.extension ?? "" };
}

class SmallCheck implements SmallVerdict {
  readonly findings: Finding[] = [];
  readonly hashes = new Map<ObjectKey, StoredHash>();
  readonly vouchedFor = new Set<ObjectKey>();
  readonly #storage: Storage;
  readonly #ownKeys: ReadonlySet<ObjectKey>;
  readonly #hasher: Hasher;
  readonly #signal: AbortSignal;

  constructor(
    storage: Storage,
    { ownKeys }: Catalogue,
    { hasher, signal }: CallOptions & { readonly hasher: Hasher },
  ) {
    this.#storage = storage;
    this.#ownKeys = new Set(ownKeys);
    this.#hasher = hasher;
    this.#signal = signal;
  }

  async remember(key: ObjectKey): Promise<void> {
    const options = { hasher: this.#hasher, signal: this.#signal };
    const hash = await this.#attempt(key, () => hashObject(this.#storage, key, options));
    if (hash !== undefined) this.hashes.set(key, hash);
  }

  /** `rekey` writes it anew: it has to name the keys in use, or be as it was. */
  async mark(): Promise<void> {
    const [kind = "", ...ownKeyIds] = (this.#storage.encryption ?? "").split(" ");
    await this.#attempt(ENCRYPTION_MARK_KEY, async () => {
      const bytes = await readAll(this.#get(ENCRYPTION_MARK_KEY), SMALL_BYTES_MAX);
      const isOwn = bytes.toString("utf8") === formatMark({ kind, ownKeyIds });
      if (isOwn) this.vouchedFor.add(ENCRYPTION_MARK_KEY);
    });
  }

  async label(object: StoredWal): Promise<void> {
    const bytes = await this.text(object);
    if (bytes === undefined) return;
    await this.#attempt(object.key, async () => {
      parseBackupHistory(bytes.toString("utf8"));
    });
  }

  async delta(object: StoredWal): Promise<void> {
    await this.#attempt(object.key, async () => {
      parseWalDelta(await this.#read(object, CHANGES_BYTES_MAX));
    });
  }

  /** Reads a text that came with the sum of its content, and compares. */
  async text(object: StoredWal): Promise<Buffer | undefined> {
    return await this.#attempt(object.key, async () => {
      const bytes = await this.#read(object, HISTORY_BYTES_MAX);
      const key = contentSumKey(parseWalKey(object.key)?.name ?? "");
      const sum = this.#ownKeys.has(key)
        ? await this.#attempt(key, () => this.#sum(key))
        : undefined;
      const isOther =
        sum !== undefined &&
        (sum.sizeBytes !== bytes.length ||
          sum.sha256 !== nodeCrypto().createHash("sha256").update(bytes).digest("hex"));
      if (isOther) this.#add(object.key, "it is not what PostgreSQL handed over");
      return bytes;
    });
  }

  async own(key: ObjectKey): Promise<void> {
    await this.#attempt(key, async () => {
      const map = parseChangeMapKey(key);
      const quarantined = parseQuarantinedKey(key);
      if (map !== undefined) {
        const object = { key, extension: map.extension };
        parseChangeMap(await this.#read(object, CHANGES_BYTES_MAX));
      } else if (quarantined !== undefined) {
        const content = readStoredWal(this.#storage, { key, ...quarantined }, this.#reading);
        for await (const _ of content) this.#signal.throwIfAborted();
      } else if (parseContentSumKey(key) !== undefined) {
        await this.#sum(key);
      } else {
        const bytes = await readAll(this.#get(key), SMALL_BYTES_MAX);
        if (key.startsWith(COMMIT_INDEX_FOLDER)) parseGroup(bytes, this.#hasher);
        else if (key.endsWith(".json")) parseJson(bytes.toString("utf8"));
      }
    });
  }

  async #sum(key: ObjectKey) {
    const sum = parseContentSum((await readAll(this.#get(key), SMALL_BYTES_MAX)).toString("utf8"));
    if (contentSumKey(sum.wal) !== key) this.#add(key, `it is the sum of ${sum.wal}`);
    return sum;
  }

  #get(key: ObjectKey) {
    return this.#storage.get(key, { signal: this.#signal });
  }

  async #read(object: StoredWal, bytesMax: number): Promise<Buffer> {
    return await readAll(readStoredWal(this.#storage, object, this.#reading), bytesMax);
  }

  get #reading() {
    return { codecJobs: 1, signal: this.#signal };
  }

  /** What is wrong becomes a finding about `key`, once. */
  async #attempt<T>(key: ObjectKey, check: () => Promise<T>): Promise<T | undefined> {
    try {
      return await check();
    } catch (error) {
      this.#signal.throwIfAborted();
      this.#add(key, faultText(error));
      return undefined;
    }
  }

  #add(subject: ObjectKey, text: string): void {
    const isKnown = this.findings.some((known) => known.subject === subject && known.text === text);
    if (!isKnown) this.findings.push({ kind: "damaged", subject, text });
  }
}
