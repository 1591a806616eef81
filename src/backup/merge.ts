import { DamagedError } from "../errors.ts";
import { createHasher, type HashAlgorithm } from "../io/hash.ts";
import { sentinelKey } from "../layout/keys.ts";
import { lsn } from "../postgres/lsn.ts";
import { parsePgControl } from "../postgres/pg-control.ts";
import { DocumentsSpool } from "./documents-spool.ts";
import {
  type BackupDescription,
  removeObjects,
  writeDocuments,
  writeSentinel,
} from "./documents-write.ts";
import { EntryPacker, type StreamedEntry } from "./entry-packer.ts";
import { requireSpace } from "./free-space.ts";
import { MergeClaim, requireFreeName } from "./merge-claim.ts";
import { MergeFacts } from "./merge-facts.ts";
import { collectPages, extractSpecials, type MergeInput, passEntries } from "./merge-input.ts";
import { MergePages } from "./merge-pages.ts";
import type { MergePlan } from "./merge-plan.ts";
import type { MergedBackup, MergeSettings, MergeWorld } from "./merge-settings.ts";
import { ClaimedStorage, requireListed } from "./merge-storage.ts";
import { hasServerManifest, MergedManifest } from "./merged-manifest.ts";
import { packControl, packLabel } from "./own-parts.ts";
import { PageFile } from "./page-file.ts";
import type { SpecialFile } from "./part-extract.ts";
import { PartUpload } from "./part-upload.ts";
import { PushProgress } from "./push-progress.ts";
import { requireControlFile } from "./restored-control.ts";
import { CONTROL_PATH } from "./restore-marker.ts";
import { LABEL_PATH, TABLESPACE_MAP_PATH } from "./restore-plan.ts";

export type { MergedBackup, MergeSettings, MergeWorld } from "./merge-settings.ts";

/** Rejects where `mergeBackup` would before it stores anything, as far as that can be told. */
export async function requireMergePossible(
  { name, spoolBytes = 0 }: MergePlan,
  { spoolDirectory: directory, abandonedAfterMs }: MergeSettings,
  world: Pick<MergeWorld, "storage" | "clock" | "signal">,
): Promise<void> {
  await requireFreeName(name, abandonedAfterMs, world);
  await requireSpace(
    [{ directory, sizeBytes: spoolBytes }],
    "set WALNUT_CACHE_DIR to a directory of another file system",
  );
}

/**
 * Makes a full backup of a chain. Resolves when it exists; rejects otherwise, and then there is no
 * sentinel. The chain is not changed. See MERGE.md.
 */
export async function mergeBackup(
  plan: MergePlan,
  settings: MergeSettings,
  world: MergeWorld,
): Promise<MergedBackup> {
  await requireMergePossible(plan, settings, world);
  const { name, newest, patchedCount } = plan;
  const claim = await MergeClaim.take(name, { ...settings, source: newest.name }, world);
  world.log.info("merging a chain of backups", { backup: name, newest: newest.name });
  using documents = new DocumentsSpool({
    directory: settings.spoolDirectory,
    hasFilesMetadata: true,
  });
  const target = new ClaimedStorage(world.storage, claim);
  let description: BackupDescription;
  try {
    description = await storeAll(plan, settings, { world, documents, target });
    await claim.requireFolder(target.stored);
    await requireListed(newest.name, world);
  } catch (error) {
    // What another one has taken over is not ours to remove.
    if (await claim.isHeld()) await removeObjects(name, error, world);
    throw error;
  }
  await writeSentinel(description, world);
  if (!(await claim.isHeld())) {
    // Who took it may have removed what the sentinel promises.
    await world.storage.delete([sentinelKey(name)], world);
    await claim.require();
  }
  await claim.release();
  const { contentBytes, storedBytes } = description;
  const { fileCount } = documents;
  return { name, mergedFrom: newest.name, fileCount, patchedCount, contentBytes, storedBytes };
}

interface Making {
  readonly world: MergeWorld;
  readonly documents: DocumentsSpool;
  /** Where the new backup goes. */
  readonly target: ClaimedStorage;
}

/** Everything but the sentinel. */
async function storeAll(
  plan: MergePlan,
  settings: MergeSettings,
  making: Making,
): Promise<BackupDescription> {
  const { world, documents, target } = making;
  const { newest, spoolBytes = 0, sizeBytes } = plan;
  const { storage, log, signal } = world;
  const progress = new PushProgress(world.onProgress);
  if (sizeBytes !== undefined) progress.expect(spoolBytes + sizeBytes);
  const tablespaces = new Set((newest.sentinel.spec?.tablespaces ?? []).map(({ link }) => link));
  const onProgress = (count: number): void => progress.add(count);
  const { codecJobs } = settings;
  const gaps = new Map();
  const input = { plan, storage, codecJobs, tablespaces, gaps, onProgress, log, signal };
  using file = new PageFile(settings.spoolDirectory);
  const pages = new MergePages(file, tablespaces);
  const specials = await extractSpecials(input, pages);
  const control = requireSpecial(plan, specials, CONTROL_PATH);
  requireControlFile(newest.name, newest.sentinel, control);
  const facts = await MergeFacts.read(storage, plan, documents, { zstd: settings.zstd, signal });
  await collectPages(input, pages);
  const storedBytes = await storeParts(input, { ...making, pages, facts, specials }, settings);
  const description = describe(plan, settings, { documents, facts, control, storedBytes });
  const options = { storage: target, zstd: settings.zstd, signal };
  return await writeDocuments(documents, description, options);
}

interface Parts extends Making {
  readonly pages: MergePages;
  readonly facts: MergeFacts;
  readonly specials: ReadonlyMap<string, SpecialFile>;
}

/** Gives the bytes that were stored. */
async function storeParts(
  input: MergeInput,
  { world, documents, target, pages, facts, specials }: Parts,
  settings: MergeSettings,
): Promise<number> {
  const { plan, onProgress: onContent } = input;
  const { signal } = world;
  const { name, newest } = plan;
  const hash = hashOf(plan, settings);
  const upload = new PartUpload({
    ...settings,
    storage: target,
    backup: name,
    hash,
    partConcurrency: 1,
    documents,
    onContent,
    signal,
  });
  const isManifestWanted = await hasServerManifest(newest.name, world);
  using manifest = isManifestWanted
    ? new MergedManifest(name, newest.sentinel, settings.spoolDirectory)
    : undefined;
  try {
    await passEntries(input, { pages, facts }, async (entries) => {
      const listed = manifest === undefined ? entries : listing(entries, manifest);
      await upload.packStreamed(async (part) => {
        const first = await listed.next();
        if (first.done === true) return undefined;
        const { thresholdBytes } = settings;
        const hasher = await createHasher(hash);
        const options = { part, documents, hasher, thresholdBytes, onContent, signal };
        return new EntryPacker(first.value, listed, { ...options, onReceived: async () => {} });
      });
    });
    await putSpecials(upload, { documents, specials, plan, settings, hash });
    for (const [path, { bytes }] of specials) {
      if (path !== TABLESPACE_MAP_PATH || bytes.length > 0) manifest?.addWhole(path, bytes);
    }
    await manifest?.put(target, { zstd: settings.zstd, signal });
    await upload.finish();
    return upload.storedBytes;
  } catch (error) {
    await upload.settle();
    throw error;
  }
}

async function* listing(
  entries: AsyncIterator<StreamedEntry, undefined>,
  manifest: MergedManifest,
): AsyncGenerator<StreamedEntry, undefined> {
  for (let next = await entries.next(); next.done !== true; next = await entries.next()) {
    const { value } = next;
    yield value.kind === "file" ? manifest.observed(value) : value;
  }
}

interface Specials extends Pick<Parts, "documents" | "specials"> {
  readonly plan: MergePlan;
  readonly settings: MergeSettings;
  readonly hash: HashAlgorithm;
}

/** pg_control and labels, as the newest backup has them. */
async function putSpecials(
  upload: PartUpload,
  { documents, specials, plan, settings, hash }: Specials,
): Promise<void> {
  const { sentinel } = plan.newest;
  const { extension } = settings.codec;
  const hasher = await createHasher(hash);
  const options = { documents, hasher, extension, owner: { uid: 0, gid: 0 } };
  upload.putTar(packControl(requireSpecial(plan, specials, CONTROL_PATH), options));
  const stop = {
    stopLsn: lsn(sentinel.finishLsn ?? 0n),
    backupLabel: requireSpecial(plan, specials, LABEL_PATH).toString(),
    tablespaceMap: specials.get(TABLESPACE_MAP_PATH)?.bytes.toString() ?? "",
  };
  upload.putTar(packLabel(stop, lsn(sentinel.startLsn ?? 0n), options));
}

function requireSpecial(
  { newest }: MergePlan,
  specials: ReadonlyMap<string, SpecialFile>,
  path: string,
): Buffer {
  const special = specials.get(path);
  if (special !== undefined) return special.bytes;
  throw new DamagedError(`no part of backup ${newest.name} holds ${path}`, {
    hint: "Without it the data can't be made consistent: restore or merge another backup.",
  });
}

/** Later increments need the hashes that the chain has. */
function hashOf({ newest }: MergePlan, { hash }: MergeSettings): HashAlgorithm {
  return newest.manifest?.header.hash ?? hash;
}

interface Stored {
  readonly documents: DocumentsSpool;
  readonly facts: MergeFacts;
  readonly control: Buffer;
  readonly storedBytes: number;
}

/** What the documents say: of the cluster and of time what the newest backup does. */
function describe(
  plan: MergePlan,
  settings: MergeSettings,
  { documents, facts, control, storedBytes }: Stored,
): BackupDescription {
  const { name, newest, steps } = plan;
  const { sentinel, manifest } = newest;
  const { corruptPages } = facts;
  const isPagesVerified = steps.every(({ isPagesVerified: isVerified }) => isVerified);
  const { startLsn, finishLsn, systemId, pgVersion, startTimeNs, finishTimeNs } = sentinel;
  const known = { startLsn, finishLsn, systemId, pgVersion, startTimeNs, finishTimeNs };
  for (const [what, value] of Object.entries(known)) {
    if (value === undefined) throw new DamagedError(`sentinel of ${newest.name} lacks ${what}`);
  }
  return {
    name,
    startLsn: startLsn ?? 0n,
    stopLsn: finishLsn ?? 0n,
    startTimeNs: startTimeNs ?? 0n,
    finishTimeNs: finishTimeNs ?? 0n,
    systemId: systemId ?? 0n,
    versionNumber: pgVersion ?? 0,
    dataDirectory: sentinel.dataDirectory ?? "",
    contentBytes: documents.contentBytes,
    storedBytes,
    catalogBytes: sentinel.dataCatalogBytes ?? documents.contentBytes,
    tablespaces: sentinel.spec?.tablespaces ?? [],
    hash: hashOf(plan, settings),
    hasFilesMetadata: true,
    isPermanent: settings.isPermanent,
    userData: settings.userData,
    hasChecksums: manifest?.header.hasChecksums ?? parsePgControl(control).dataChecksumVersion > 0,
    own: {
      mergedFrom: newest.name,
      isPagesVerified: isPagesVerified || undefined,
      corruptPages: corruptPages === 0 ? undefined : corruptPages,
    },
  };
}
