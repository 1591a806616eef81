import type { Codec } from "../codec/codec.ts";
import { ObjectNotFoundError } from "../errors.ts";
import type { ByteStream } from "../io/bytes.ts";
import { createHasher } from "../io/hash.ts";
import { type BackupName, parseBackupName } from "../layout/backup-name.ts";
import { serverManifestKey } from "../layout/keys.ts";
import type { Sentinel } from "../layout/sentinel.ts";
import { timeMsOf } from "../layout/time.ts";
import {
  formatManifestChecksum,
  formatManifestEntry,
  formatManifestHead,
  formatManifestRange,
} from "../postgres/backup-manifest.ts";
import { lsn } from "../postgres/lsn.ts";
import type { Storage } from "../storage/storage.ts";
import type { StreamedFile } from "./entry-packer.ts";
import { ContentHash } from "./server-manifest.ts";
import { Spool } from "./spool.ts";

/** From this release on a manifest names its cluster. */
const CLUSTER_NAMED_FROM = 170_000;
const NAME_TIMELINE_LENGTH = 8;

/** PostgreSQL's own manifest of a merged backup, as pg_combinebackup would write it. */
export class MergedManifest implements Disposable {
  readonly #spool: Spool;
  readonly #content = new ContentHash();
  readonly #sentinel: Sentinel;
  readonly #name: BackupName;
  #isFirst = true;

  /** `sentinel` is that of the newest backup. */
  constructor(name: BackupName, sentinel: Sentinel, spoolDirectory: string) {
    this.#name = name;
    this.#sentinel = sentinel;
    this.#spool = new Spool(spoolDirectory);
    const { systemId, pgVersion = 0 } = sentinel;
    this.#spool.append(formatManifestHead(pgVersion < CLUSTER_NAMED_FROM ? undefined : systemId));
  }

  /** Lists a file when its content was read. */
  observed(file: StreamedFile): StreamedFile {
    const { path, sizeBytes, mtimeNs } = file;
    const add = (): void => this.#add({ path, sizeBytes, mtimeNs });
    const content = this.#content;
    return {
      ...file,
      content: async function* () {
        for await (const chunk of file.content()) {
          content.update(chunk);
          yield chunk;
        }
        add();
      },
    };
  }

  /** Lists a file that is kept apart. */
  addWhole(path: string, bytes: Uint8Array): void {
    this.#content.update(bytes);
    this.#add({ path, sizeBytes: bytes.length, mtimeNs: 0n });
  }

  /** Stores it beside the parts. */
  async put(
    storage: Pick<Storage, "put">,
    { zstd, signal }: { readonly zstd: Codec; readonly signal: AbortSignal },
  ): Promise<void> {
    const { startLsn = 0n, finishLsn = 0n } = this.#sentinel;
    const { segment } = parseBackupName(this.#name);
    const timeline = Number.parseInt(segment.slice(0, NAME_TIMELINE_LENGTH), 16);
    this.#spool.append(
      formatManifestRange({ timeline, startLsn: lsn(startLsn), endLsn: lsn(finishLsn) }),
    );
    const sha256 = await createHasher("sha256");
    for await (const chunk of this.#spool.read()) sha256.update(chunk);
    this.#spool.append(formatManifestChecksum(sha256.digest()));
    const open = (): ByteStream => zstd.compress(this.#spool.read(), { jobs: 1, signal });
    await storage.put(serverManifestKey(this.#name), { isReopenable: true, open }, { signal });
  }

  [Symbol.dispose](): void {
    this.#spool[Symbol.dispose]();
  }

  #add({ path, sizeBytes, mtimeNs }: Pick<StreamedFile, "path" | "sizeBytes" | "mtimeNs">): void {
    const checksum = this.#content.digest();
    const modifiedMs = timeMsOf(mtimeNs);
    this.#spool.append(
      formatManifestEntry({ path, sizeBytes, checksum, modifiedMs }, this.#isFirst),
    );
    this.#isFirst = false;
  }
}

/** Whether the backup has a manifest of PostgreSQL's. */
export async function hasServerManifest(
  backup: BackupName,
  { storage, signal }: { readonly storage: Storage; readonly signal: AbortSignal },
): Promise<boolean> {
  try {
    await storage.stat(serverManifestKey(backup), { signal });
    return true;
  } catch (error) {
    if (error instanceof ObjectNotFoundError) return false;
    throw error;
  }
}
