import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { codecOf } from "../../src/codec/table.ts";
import type { CompressionMethod } from "../../src/codec/codec.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { createHasher } from "../../src/io/hash.ts";
import {
  type FileDescription,
  formatFileDescription,
  formatFilesMetadata,
} from "../../src/layout/files-metadata.ts";
import {
  controlKey,
  filesMetadataKey,
  labelKey,
  manifestKey,
  metadataKey,
  partKey,
  sentinelKey,
} from "../../src/layout/keys.ts";
import { formatManifestLine, type ManifestLine } from "../../src/layout/manifest.ts";
import { formatMetadata } from "../../src/layout/metadata.ts";
import { formatSentinel, type Sentinel, sumSentinel } from "../../src/layout/sentinel.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { formatTarHeader, tarPaddingBytes } from "../../src/tar/write.ts";

/** Something in a data directory, by its path in it ("" is the directory itself). */
export type SyntheticEntry =
  | {
      readonly kind: "file";
      readonly path: string;
      readonly content: Buffer;
      readonly mode?: number;
    }
  | { readonly kind: "directory"; readonly path: string; readonly mode?: number }
  | { readonly kind: "link"; readonly path: string; readonly target: string };

export interface SyntheticBackup {
  readonly entries: readonly SyntheticEntry[];
  readonly name?: string;
  readonly sentinel?: Partial<Sentinel>;
  readonly method?: CompressionMethod;
  readonly hash?: "xxh64" | "sha256";
  /** Ordinary parts; entries are dealt out in turn. */
  readonly partCount?: number;
  /** "walnut" has our manifest, "walg" files_metadata.json, "both" the two, "bare" neither. */
  readonly style?: "walnut" | "walg" | "both" | "bare";
  /** Of files that are not stored whole, by path. */
  readonly states?: ReadonlyMap<string, "incremented" | "skipped">;
}

export const SYNTHETIC_NAME = "base_000000010000000000000002";
export const SYNTHETIC_SYSTEM_ID = 7_412_345_678_901_234_567n;
const MTIME_NS = 1_700_000_000_000_000_000n;
const SPECIALS = new Set(["global/pg_control", "backup_label", "tablespace_map"]);

/** What every backup has: a control file that belongs to the synthetic cluster, and labels. */
export function specialEntries(tablespaceMap = ""): SyntheticEntry[] {
  const control = Buffer.alloc(8192, 7);
  control.writeBigUInt64LE(SYNTHETIC_SYSTEM_ID, 0);
  return [
    { kind: "file", path: "global/pg_control", content: control },
    { kind: "file", path: "backup_label", content: Buffer.from("START WAL LOCATION: 0/2000028\n") },
    { kind: "file", path: "tablespace_map", content: Buffer.from(tablespaceMap) },
  ];
}

/** Everything in a real directory. */
export function readEntries(root: string): SyntheticEntry[] {
  const entries: SyntheticEntry[] = [
    { kind: "directory", path: "", mode: lstatSync(root).mode & 0o7777 },
  ];
  for (const path of readdirSync(root, { recursive: true, encoding: "utf8" }).toSorted()) {
    const absolute = join(root, path);
    const stats = lstatSync(absolute);
    const mode = stats.mode & 0o7777;
    if (stats.isDirectory()) entries.push({ kind: "directory", path, mode });
    else if (stats.isSymbolicLink()) {
      entries.push({ kind: "link", path, target: readlinkSync(absolute) });
    } else entries.push({ kind: "file", path, content: readFileSync(absolute), mode });
  }
  return entries;
}

interface Pack {
  readonly key: string;
  readonly name: string;
  readonly pieces: Buffer[];
  readonly paths: string[];
  plainBytes: number;
}

/** Stores a backup as backup-push would, by the layout and tar modules alone; gives its name. */
export async function putSyntheticBackup(
  storage: Storage,
  backup: SyntheticBackup,
): Promise<string> {
  const { name = SYNTHETIC_NAME, method = "zstd", style = "walnut", partCount = 3 } = backup;
  const signal = AbortSignal.timeout(60_000);
  const codec = codecOf(method);
  const packs = new Map<string, Pack>();
  const packFor = (key: string): Pack => {
    const pack = packs.get(key) ?? {
      key,
      name: key.slice(key.lastIndexOf("/") + 1),
      pieces: [],
      paths: [],
      plainBytes: 0,
    };
    packs.set(key, pack);
    return pack;
  };
  const lines: ManifestLine[] = [];
  const hasher = await createHasher(backup.hash ?? "xxh64");
  for (const [index, entry] of backup.entries.entries()) {
    if (backup.states?.get(entry.path) === "skipped") continue;
    const pack = packFor(keyFor(name, entry.path, codec.extension, (index % partCount) + 1));
    const offsetBytes = addEntry(pack, entry);
    lines.push(describe(entry, pack.name, offsetBytes, (bytes) => hasher.digestOf(bytes)));
  }
  const stored = await createHasher("xxh64");
  for (const { key, name: part, pieces, plainBytes } of packs.values()) {
    const tar = Buffer.concat([...pieces, Buffer.alloc(1024)]);
    const bytes = await readAll(codec.compress(bytesSource(tar).open(), { jobs: 1, signal }));
    await storage.put(key, bytesSource(bytes), { signal });
    const xxh64 = stored.digestOf(bytes);
    const sizeBytes = bytes.length;
    lines.push({ kind: "part", name: part, sizeBytes, plainBytes: plainBytes + 1024, xxh64 });
  }
  const put = async (key: string, bytes: Uint8Array): Promise<void> => {
    await storage.put(key, bytesSource(bytes), { signal });
  };
  const isOf = (other: typeof style) => style === other || style === "both";
  let sentinel = sentinelOf(backup);
  if (isOf("walnut")) {
    const manifest = await packManifest(name, backup, lines);
    await put(manifestKey(name), manifest);
    sentinel = { ...sentinel, own: { ...sentinel.own, manifestHash: stored.digestOf(manifest) } };
  }
  if (isOf("walg")) {
    const files = await packFiles(backup, packs.values());
    await put(filesMetadataKey(name), files);
    if (style === "both")
      sentinel = {
        ...sentinel,
        own: { ...sentinel.own, filesMetadataHash: stored.digestOf(files) },
      };
  }
  await put(metadataKey(name), Buffer.from(metadataText(backup)));
  if (isOf("walnut")) sentinel = sumSentinel(sentinel, (bytes) => stored.digestOf(bytes));
  await put(sentinelKey(name), Buffer.from(formatSentinel(sentinel)));
  return name;
}

function keyFor(name: string, path: string, extension: string, index: number): string {
  if (path === "global/pg_control") return controlKey(name, extension);
  return SPECIALS.has(path) ? labelKey(name, extension) : partKey(name, index, extension);
}

/** Gives the offset of the content in the archive. */
function addEntry(pack: Pack, entry: SyntheticEntry): number {
  const content = entry.kind === "file" ? entry.content : Buffer.alloc(0);
  const header = formatTarHeader({
    kind: entry.kind === "link" ? "symlink" : entry.kind,
    name: entryName(entry.path),
    ...(entry.kind === "link" ? { linkName: entry.target } : {}),
    mode: modeOf(entry),
    sizeBytes: content.length,
    modifiedAtSeconds: 0,
    uid: 0,
    gid: 0,
  });
  const offset = pack.plainBytes + header.length;
  const padding = Buffer.alloc(tarPaddingBytes(content.length));
  pack.pieces.push(Buffer.from(header), content, padding);
  pack.plainBytes = offset + content.length + padding.length;
  pack.paths.push(entryName(entry.path));
  return offset;
}

function entryName(path: string): string {
  return path === "backup_label" || path === "tablespace_map" ? path : `/${path}`;
}

function modeOf(entry: SyntheticEntry): number {
  if (entry.kind === "link") return 0o777;
  return entry.mode ?? (entry.kind === "file" ? 0o600 : 0o700);
}

function describe(
  entry: SyntheticEntry,
  part: string,
  offsetBytes: number,
  hashOf: (bytes: Buffer) => string,
): ManifestLine {
  const name = entryName(entry.path);
  if (entry.kind === "link") return { kind: "link", name, target: entry.target };
  if (entry.kind === "directory") return { kind: "directory", name, mode: modeOf(entry) };
  return {
    kind: "file",
    name,
    sizeBytes: entry.content.length,
    mode: modeOf(entry),
    mtimeNs: MTIME_NS,
    hash: hashOf(entry.content),
    part,
    offsetBytes,
  };
}

function sentinelOf({ sentinel, entries }: SyntheticBackup): Sentinel {
  return {
    startLsn: 0x2000028n,
    finishLsn: 0x2000100n,
    pgVersion: 0,
    systemId: SYNTHETIC_SYSTEM_ID,
    uncompressedBytes: sizeOf(entries),
    dataCatalogBytes: sizeOf(entries),
    startTimeNs: MTIME_NS,
    finishTimeNs: MTIME_NS + 1_000_000_000n,
    isFilesMetadataDisabled: false,
    isPermanent: false,
    ...sentinel,
  };
}

function metadataText(backup: SyntheticBackup): string {
  const sentinel = sentinelOf(backup);
  return formatMetadata({
    startTimeNs: sentinel.startTimeNs ?? 0n,
    finishTimeNs: sentinel.finishTimeNs ?? 0n,
    hostname: "host",
    dataDirectory: "/data",
    pgVersion: sentinel.pgVersion ?? 0,
    startLsn: sentinel.startLsn ?? 0n,
    finishLsn: sentinel.finishLsn ?? 0n,
    isPermanent: false,
    systemId: sentinel.systemId,
    uncompressedBytes: sizeOf(backup.entries),
    compressedBytes: 0,
    userData: sentinel.userData,
  });
}

function sizeOf(entries: readonly SyntheticEntry[]): number {
  return entries.reduce(
    (sum, entry) => sum + (entry.kind === "file" ? entry.content.length : 0),
    0,
  );
}

async function packManifest(
  name: string,
  backup: SyntheticBackup,
  lines: readonly ManifestLine[],
): Promise<Buffer> {
  const { systemId = 0n, startLsn = 0n } = sentinelOf(backup);
  const header = { kind: "header", backup: name, systemId, startLsn } as const;
  const text = [
    { ...header, hash: backup.hash ?? "xxh64" },
    ...lines,
    {
      kind: "end" as const,
      fileCount: lines.filter(({ kind }) => kind === "file").length,
      partCount: lines.filter(({ kind }) => kind === "part").length,
      sizeBytes: sizeOf(backup.entries),
    },
  ]
    .map(formatManifestLine)
    .join("");
  const signal = AbortSignal.timeout(60_000);
  const plain = bytesSource(Buffer.from(text)).open();
  return await readAll(codecOf("zstd").compress(plain, { jobs: 1, signal }));
}

async function packFiles(backup: SyntheticBackup, packs: Iterable<Pack>): Promise<Buffer> {
  const files = backup.entries
    .filter(({ path }) => !SPECIALS.has(path))
    .map(({ path }) => {
      const state = backup.states?.get(path);
      const file: FileDescription = {
        name: entryName(path),
        isIncremented: state === "incremented",
        isSkipped: state === "skipped",
        mtimeNs: MTIME_NS,
        updatesCount: 0n,
      };
      return formatFileDescription(file, 0);
    });
  const parts = [...packs]
    .filter(({ name }) => !name.startsWith("pg_control"))
    .map(({ name, paths }) => `${JSON.stringify(name)}:${JSON.stringify(paths)}`);
  return await readAll(
    formatFilesMetadata({
      files: bytesSource(Buffer.from(files.join(","))).open(),
      parts: bytesSource(Buffer.from(parts.join(","))).open(),
      databases: bytesSource(Buffer.alloc(0)).open(),
    }),
  );
}
