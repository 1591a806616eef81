/** Records that change files, as PostgreSQL 15 writes them. */
import type { RecordRecipe } from "./wal-writer.ts";

export interface WrittenBlock {
  readonly relfilenode: number;
  readonly block: number;
}

/** All relations of these records are in the default tablespace and this database. */
export const DATABASE_OID = 5;
const TABLESPACE_OID = 1663;

function u32(...numbers: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 * numbers.length);
  const view = new DataView(bytes.buffer);
  for (const [index, number] of numbers.entries()) view.setUint32(4 * index, number, true);
  return bytes;
}

function record(
  resourceManager: number,
  info: number,
  parts: readonly (Uint8Array | readonly number[])[],
): RecordRecipe {
  const data = Buffer.concat(parts.map((part) => Uint8Array.from(part)));
  return { resourceManager, info, data, dataBytes: data.length };
}

/** The main data with its header. */
function mainData(data: Uint8Array): readonly (Uint8Array | readonly number[])[] {
  return [[254], u32(data.length), data];
}

/** An insertion of so many bytes into each of the blocks, at most 33. */
export function heapRecord(blocks: readonly WrittenBlock[], padding = 20): RecordRecipe {
  const references = blocks.flatMap(({ relfilenode, block }, index) => [
    [index, 0, 0, 0],
    u32(TABLESPACE_OID, DATABASE_OID, relfilenode, block),
  ]);
  return record(10, 0, [...references, ...mainData(new Uint8Array(padding).fill(7))]);
}

export function createRecord(relfilenode: number): RecordRecipe {
  return record(2, 0x11, mainData(u32(TABLESPACE_OID, DATABASE_OID, relfilenode, 0)));
}

export function truncateRecord(relfilenode: number, blockCount: number): RecordRecipe {
  const data = u32(blockCount, TABLESPACE_OID, DATABASE_OID, relfilenode, 7);
  return record(2, 0x21, mainData(data));
}

/** The commit of a transaction that dropped these. */
export function commitRecord(dropped: readonly number[]): RecordRecipe {
  const relations = dropped.flatMap((relfilenode) => [TABLESPACE_OID, DATABASE_OID, relfilenode]);
  const data = u32(0, 0, 4, dropped.length, ...relations);
  return record(1, 0x81, mainData(data));
}

export function dropDatabaseRecord(databaseOid: number): RecordRecipe {
  return record(4, 0x21, mainData(u32(databaseOid, 1, TABLESPACE_OID)));
}

/** xl_parameter_change. */
export function parameterRecord(walLevel: number): RecordRecipe {
  return record(0, 0x60, mainData(u32(100, 8, 10, 0, 64, walLevel, 0)));
}
