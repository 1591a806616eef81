/** A whole small repository in memory: backups, WAL and timelines, in every codec. */
import type { CompressionMethod } from "../../src/codec/codec.ts";
import { codecOf } from "../../src/codec/table.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { formatIdentity } from "../../src/layout/identity.ts";
import { identityKey, walKey } from "../../src/layout/keys.ts";
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

/** A backup of each codec on timeline 1, its WAL, and timeline 2 that goes on from there. */
export async function putSyntheticRepository(random: Random): Promise<MemoryStorage> {
  const storage = new MemoryStorage();
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
  const fork = `1\t0/${(FORK_SEGMENT * MIB).toString(16).toUpperCase()}\tno recovery target specified\n`;
  for (const method of METHODS) {
    await put(
      walKey("00000002.history", codecOf(method).extension),
      await compressed(method, Buffer.from(fork)),
    );
  }
  for (const [index, method] of METHODS.entries()) {
    await putBackup(storage, { method, segment: FIRST_SEGMENT + index, control, systemId, random });
  }
  return storage;
}

async function compressed(method: CompressionMethod, bytes: Uint8Array): Promise<Buffer> {
  const options = { jobs: 1, signal: AbortSignal.timeout(60_000) };
  return await readAll(codecOf(method).compress(bytesSource(bytes).open(), options));
}

async function putWal(
  storage: MemoryStorage,
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
  storage: MemoryStorage,
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
      isFilesMetadataDisabled: true,
    },
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
