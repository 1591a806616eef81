/** A whole small repository in memory: backups, WAL and timelines, in every codec. */
import { createHash } from "node:crypto";
import type { CompressionMethod } from "../../src/codec/codec.ts";
import { codecOf, vouchingCodec } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { formatIdentity } from "../../src/layout/identity.ts";
import { type ChangeMap, formatChangeMap } from "../../src/layout/change-map.ts";
import { contentSumKey, formatContentSum } from "../../src/layout/content-sum.ts";
import { changeMapKey, identityKey, serverManifestKey, walKey } from "../../src/layout/keys.ts";
import { deltaName, formatWalDelta } from "../../src/layout/wal-delta.ts";
import { ChangedBlocks } from "../../src/postgres/changed-blocks.ts";
import type { Storage } from "../../src/storage/storage.ts";
import { formatBackupLabel, parseBackupLabel } from "../../src/postgres/backup-label.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { parsePgControl } from "../../src/postgres/pg-control.ts";
import { formatSegmentName } from "../../src/postgres/wal-file.ts";
import { MemoryStorage } from "./memory-storage.ts";
import { postgresBytes, postgresText } from "./postgres-fixtures.ts";
import type { Random } from "./random.ts";
import { putSyntheticBackup } from "./synthetic-backup.ts";
import { SWITCH, writeWal } from "./wal-writer.ts";

const METHODS: readonly CompressionMethod[] = ["zstd", "lz4", "brotli", "lzma", "none"];
const MIB = 1024 * 1024;
const FIRST_SEGMENT = 32;
const FORK_SEGMENT = FIRST_SEGMENT + METHODS.length;
const FORK = `1\t0/${(FORK_SEGMENT * MIB).toString(16).toUpperCase()}\tno recovery target specified\n`;

/** A backup of each codec on timeline 1, its WAL, and timeline 2 that goes on from there. */
export async function putSyntheticRepository(random: Random): Promise<MemoryStorage> {
  const storage = new MemoryStorage();
  await fillRepository(storage, random);
  return storage;
}

/** The same in a store that is there. */
export async function fillRepository(storage: Storage, random: Random): Promise<void> {
  const control = Buffer.from(postgresBytes(15, "pg_control.running"));
  const { systemId } = parsePgControl(control);
  const put = (key: string, bytes: Uint8Array) =>
    storage.put(key, bytesSource(bytes), { signal: AbortSignal.timeout(60_000) });
  await put(identityKey, Buffer.from(formatIdentity(systemId)));
  await putWal(
    storage,
    { timeline: 1, first: FIRST_SEGMENT, count: METHODS.length, systemId },
    random,
  );
  await putWal(storage, { timeline: 2, first: FORK_SEGMENT, count: 2, systemId }, random);
  for (const method of METHODS) {
    await put(
      walKey("00000002.history", codecOf(method).extension),
      await compressed(method, Buffer.from(FORK)),
    );
  }
  for (const [index, method] of METHODS.entries()) {
    await putBackup(storage, { method, segment: FIRST_SEGMENT + index, control, systemId, random });
  }
}

/** What else stands beside them, in each codec: partials, notes, deltas, change maps, sums. */
export async function fillExtras(storage: Storage): Promise<void> {
  const { systemId } = parsePgControl(Buffer.from(postgresBytes(15, "pg_control.running")));
  const put = (key: string, bytes: Uint8Array) =>
    storage.put(key, bytesSource(bytes), { signal: AbortSignal.timeout(60_000) });
  const putSum = async (wal: string, bytes: Buffer) => {
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    const sum = { wal, sizeBytes: bytes.length, sha256 };
    await put(contentSumKey(wal), Buffer.from(formatContentSum(sum)));
  };
  await putSum("00000002.history", Buffer.from(FORK));
  const firstSegment = BigInt(FORK_SEGMENT + 2);
  const records = [{ dataBytes: 5000 }, { dataBytes: 300_000 }];
  const [last] = writeWal({ timeline: 2, systemId, firstSegment, records }).segments;
  const backupHistory = Buffer.from(postgresText(15, "00000001000000000000000D.00000028.backup"));
  for (const [index, method] of METHODS.entries()) {
    const { extension } = codecOf(method);
    const segment = formatSegmentName(1, BigInt(FIRST_SEGMENT + index), MIB);
    const label = `${segment}.00000028.backup`;
    await put(walKey(label, extension), await compressed(method, backupHistory));
    await putSum(label, backupHistory);
    if (last === undefined) throw new Error("no WAL was written");
    await put(walKey(`${last.name}.partial`, extension), await compressed(method, last.bytes));
    const locations = [{ tablespaceOid: 1663, databaseOid: 5, relfilenode: 16384, block: index }];
    const delta = formatWalDelta({ locations, openRecord: Buffer.from("begun") });
    const vouched = vouchingCodec(codecOf(method));
    const deltaKey = walKey(deltaName(segment), vouched.extension);
    await put(deltaKey, await compressed(vouched.method, delta));
    const map = formatChangeMap(changeMap(systemId, index));
    await put(changeMapKey(segment, extension), await compressed(method, map));
    const manifest = Buffer.from(`{ "PostgreSQL-Backup-Manifest-Version": 1,\n"Files": []\n}\n`);
    await put(serverManifestKey(`base_${segment}`), await compressed("zstd", manifest));
  }
}

function changeMap(systemId: bigint, index: number): ChangeMap {
  return {
    systemId,
    majorVersion: 15,
    timeline: 1,
    startLsn: lsn(BigInt((FIRST_SEGMENT + index) * MIB)),
    segmentBytes: MIB,
    segmentCount: 1,
    changes: new ChangedBlocks(),
    continuationBytes: 0,
    isOverwrite: false,
    restEnd: "none",
    rest: new Uint8Array(),
    open: undefined,
  };
}

async function compressed(method: CompressionMethod, bytes: Uint8Array): Promise<Buffer> {
  const options = { jobs: 1, signal: AbortSignal.timeout(60_000) };
  return await readAll(codecOf(method).compress(bytesSource(bytes).open(), options));
}

async function putWal(
  storage: Storage,
  wal: { timeline: number; first: number; count: number; systemId: bigint },
  random: Random,
): Promise<void> {
  const records = [];
  for (let sum = 0; sum < (wal.count - 0.5) * MIB;) {
    const dataBytes = 200 + Math.floor(random.next() * 30_000);
    records.push({ dataBytes });
    sum += dataBytes;
  }
  const { timeline, systemId } = wal;
  const firstSegment = BigInt(wal.first);
  const written = writeWal({ timeline, systemId, firstSegment, records: [...records, SWITCH] });
  for (const [index, { name, bytes }] of written.segments.entries()) {
    const method = METHODS[index % METHODS.length] ?? "none";
    const key = walKey(name, codecOf(method).extension);
    const signal = AbortSignal.timeout(60_000);
    await storage.put(key, bytesSource(await compressed(method, bytes)), { signal });
  }
}

async function putBackup(
  storage: Storage,
  {
    method,
    segment,
    control,
    systemId,
    random,
  }: {
    method: CompressionMethod;
    segment: number;
    control: Buffer;
    systemId: bigint;
    random: Random;
  },
): Promise<void> {
  const startLsn = lsn(BigInt(segment * MIB + 40));
  const known = parseBackupLabel(postgresText(15, "backup_label"));
  const label = formatBackupLabel({ ...known, startLsn });
  const file = (path: string, sizeBytes: number) => ({
    kind: "file" as const,
    path,
    // Compressible, and different everywhere.
    content: Buffer.from(
      Array.from({ length: sizeBytes }, () => 64 + Math.floor(random.next() * 16)),
    ),
  });
  await putSyntheticBackup(storage, {
    name: `base_${formatSegmentName(1, BigInt(segment), MIB)}`,
    method,
    sentinel: {
      startLsn,
      finishLsn: startLsn + 0x100n,
      pgVersion: 150_004,
      systemId,
      hostname: "host",
      dataDirectory: "/data",
      compressedBytes: 0,
    },
    style: "both",
    entries: [
      { kind: "directory", path: "" },
      { kind: "directory", path: "base" },
      file("base/1", 9000),
      file("base/2", 3000),
      file("PG_VERSION", 3),
      { kind: "link", path: "postgresql.conf", target: "/etc/postgresql.conf" },
      { kind: "file", path: "global/pg_control", content: control },
      { kind: "file", path: "backup_label", content: Buffer.from(label) },
      { kind: "file", path: "tablespace_map", content: Buffer.alloc(0) },
    ],
  });
}
