import { FormatError } from "../errors.ts";
import { ByteReader, ByteWriter } from "./byte-fields.ts";

/** WAL-G makes one delta object of so many segments; the first has a number that it divides. */
export const DELTA_GROUP_SEGMENTS = 16;

/** A block reference of a record, of any fork, numbered over the whole relation. */
export interface DeltaLocation {
  readonly tablespaceOid: number;
  readonly databaseOid: number;
  readonly relfilenode: number;
  readonly block: number;
}

/** The content of WAL-G's object `<first segment of the group>_delta`. */
export interface WalDelta {
  /** In any order, possibly more than once. */
  readonly locations: readonly DeltaLocation[];
  /** The beginning of the record that continues in the next group; empty if none does. */
  readonly openRecord: Uint8Array;
}

const LOCATION_BYTES = 16;

/** The file name of a group's delta: "000000010000000000000010_delta". */
export function deltaName(firstSegment: string): string {
  return `${firstSegment}_delta`;
}

export function formatWalDelta({ locations, openRecord }: WalDelta): Uint8Array {
  const writer = new ByteWriter();
  const end = { tablespaceOid: 0, databaseOid: 0, relfilenode: 0, block: 0 };
  for (const { tablespaceOid, databaseOid, relfilenode, block } of [...locations, end]) {
    for (const number of [tablespaceOid, databaseOid, relfilenode, block]) writer.u32(number);
  }
  writer.lengthAndBytes(openRecord);
  return writer.written();
}

/**
 * Throws FormatError for what WAL-G does not write: no end of the list, bytes behind the record.
 */
export function parseWalDelta(bytes: Uint8Array): WalDelta {
  const reader = new ByteReader(bytes, "WAL delta");
  const locations: DeltaLocation[] = [];
  while (reader.leftBytes >= LOCATION_BYTES) {
    const location = {
      tablespaceOid: reader.u32(),
      databaseOid: reader.u32(),
      relfilenode: reader.u32(),
      block: reader.u32(),
    };
    const isEnd = Object.values(location).every((number) => number === 0);
    if (!isEnd) {
      locations.push(location);
      continue;
    }
    const openRecord = reader.lengthAndBytes();
    if (reader.leftBytes > 0)
      throw new FormatError(`WAL delta with ${reader.leftBytes} bytes more`);
    return { locations, openRecord };
  }
  throw new FormatError(`WAL delta of ${bytes.length} bytes has no end`);
}
