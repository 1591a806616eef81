import type { BackupDocuments } from "../backup/backup-documents.ts";
import { partsAtOnce } from "../backup/parts-at-once.ts";
import { boundedParallel } from "../io/ordered.ts";
import { parsePartKey, tarFolder } from "../layout/keys.ts";
import type { CallOptions, ObjectKey, Storage } from "../storage/storage.ts";
import type { DocumentsShelf } from "./documents-shelf.ts";
import type { HasherPool } from "./hasher-pool.ts";
import { pathsByPart, verifyPart } from "./verify-part.ts";
import type { VerifyItem } from "./verify-plan.ts";

export type PartItem = Extract<VerifyItem, { kind: "part" }>;

export interface PartsCheckOptions extends CallOptions {
  readonly shelf: DocumentsShelf;
  readonly hashers: HasherPool;
  /** Parts that are read at the same time, at most: fewer where the documents are large. */
  readonly jobs: number;
  readonly codecJobs: number;
  /** Asked before each part; one that may not begin is left out. */
  readonly mayBegin: () => boolean;
  readonly onBytes: (count: number) => void;
  /** Told each part that was read, and what is wrong with it. */
  readonly onChecked: (item: PartItem, key: ObjectKey, fault: string | undefined) => void;
}

/** Reads parts of backups to their ends, as many backups at a time as the shelf has room for. */
export async function verifyParts(
  storage: Storage,
  items: readonly PartItem[],
  options: PartsCheckOptions,
): Promise<void> {
  const names = [...new Set(items.map(({ backup }) => backup))];
  await options.shelf.inTurn(
    names,
    async (held) => {
      const all = [...held.values()];
      const count = Math.max(0, ...all.map(pathCountOf));
      const paths = new Map(all.map((documents) => [documents.name, pathsByPart(documents)]));
      const check = async (item: PartItem, { signal }: CallOptions): Promise<void> => {
        const documents = held.get(item.backup);
        if (documents === undefined || !options.mayBegin()) return;
        const wanted = paths.get(item.backup)?.get(item.part) ?? [];
        await checkPart(storage, item, { documents, wanted }, { ...options, signal });
      };
      const some = items.filter(({ backup }) => held.has(backup));
      const jobs = Math.min(partsAtOnce(count, { count: options.jobs }), some.length);
      await boundedParallel(some, Math.max(1, jobs), check, options);
    },
    options,
  );
}

function pathCountOf({ manifest, files }: BackupDocuments): number {
  return manifest?.files.table.count ?? files?.states.size ?? 0;
}

interface PartContent {
  readonly documents: BackupDocuments;
  readonly wanted: Iterable<string>;
}

async function checkPart(
  storage: Storage,
  item: PartItem,
  { documents, wanted }: PartContent,
  { hashers, codecJobs, signal, onBytes, onChecked }: PartsCheckOptions,
): Promise<void> {
  const key = `${tarFolder(item.backup)}${item.part}`;
  const parsed = parsePartKey(key);
  if (parsed === undefined) return;
  const { kind, extension } = parsed;
  const { manifest } = documents;
  const part = { key, name: item.part, kind, extension, stored: manifest?.parts.get(item.part) };
  const algorithm = manifest?.header.hash ?? "xxh64";
  const fault = await hashers.use("xxh64", (stored) =>
    hashers.use(algorithm, (content) =>
      verifyPart(storage, documents, part, { codecJobs, signal, wanted, onBytes, stored, content }),
    ),
  );
  onChecked(item, key, fault);
}
