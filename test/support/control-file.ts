import { crc32c } from "../../src/postgres/crc32c.ts";

/** @source enum DBState of src/include/catalog/pg_control.h */
export const IN_CRASH_RECOVERY = 4;
export const IN_ARCHIVE_RECOVERY = 5;
export const IN_PRODUCTION = 6;

export interface ControlChange {
  readonly systemId?: bigint;
  readonly state?: number;
  readonly checkpointLsn?: bigint;
  /** Of the last checkpoint. */
  readonly timeline?: number;
  /** Where a standby had got to. */
  readonly minRecoveryTimeline?: number;
}

/** The pg_control of a real server with other values, and the CRC that belongs to them. */
export function changeControl(control: Uint8Array, change: ControlChange): Buffer {
  const bytes = Buffer.from(control);
  if (change.systemId !== undefined) bytes.writeBigUInt64LE(change.systemId, 0);
  if (change.state !== undefined) bytes.writeUInt32LE(change.state, 16);
  if (change.checkpointLsn !== undefined) bytes.writeBigUInt64LE(change.checkpointLsn, 32);
  if (change.timeline !== undefined) bytes.writeUInt32LE(change.timeline, 48);
  if (change.minRecoveryTimeline !== undefined) {
    bytes.writeUInt32LE(change.minRecoveryTimeline, 144);
  }
  const crcOffset = bytes.readUInt32LE(8) >= 1800 ? 292 : 288;
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, crcOffset)), crcOffset);
  return bytes;
}
