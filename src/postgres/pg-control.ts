import { FormatError, TruncatedError } from "../errors.ts";
import { crc32c } from "./crc32c.ts";
import { type Lsn, lsn } from "./lsn.ts";
import { type PostgresRelease, RELEASE_RANGE, RELEASES } from "./versions.ts";

/**
 * Size of the file; all behind the structure is zeros. @source PG_CONTROL_FILE_SIZE, pg_control.h
 */
export const PG_CONTROL_BYTES = 8192;

/** In the words of pg_controldata, by DBState's value. @source DBState, pg_control.h */
const STATES = [
  "starting up",
  "shut down",
  "shut down in recovery",
  "shutting down",
  "in crash recovery",
  "in archive recovery",
  "in production",
] as const;

/** What the server was doing when it last wrote the file. */
export type DatabaseState = (typeof STATES)[number];

/** The part of pg_control that backups, restores and checks need. */
export interface PgControl {
  readonly majorVersion: number;
  readonly catalogVersion: number;
  readonly systemId: bigint;
  readonly state: DatabaseState;
  /** When the file was last written: Unix time in seconds. */
  readonly modifiedAtSeconds: number;
  /** Where the latest checkpoint record stands. */
  readonly checkpointLsn: Lsn;
  /** Where recovery from that checkpoint begins. */
  readonly redoLsn: Lsn;
  /** The timeline of that checkpoint. */
  readonly timeline: number;
  readonly previousTimeline: number;
  readonly hasFullPageWrites: boolean;
  /** Unix time in seconds. */
  readonly checkpointAtSeconds: number;
  /** Recovery must reach this position before the data is consistent; 0 when none is set. */
  readonly minRecoveryLsn: Lsn;
  readonly minRecoveryTimeline: number;
  /** Set while a restored backup is being recovered; 0 otherwise. */
  readonly backupStartLsn: Lsn;
  readonly backupEndLsn: Lsn;
  readonly isBackupEndRequired: boolean;
  /** Size of a data page, 8192 unless compiled otherwise. */
  readonly blockBytes: number;
  /** Blocks in a relation segment, 131072 (1 GiB) unless compiled otherwise. */
  readonly relationSegmentBlocks: number;
  readonly walPageBytes: number;
  readonly walSegmentBytes: number;
  /** 0: no data checksums; 1: the only kind there is. */
  readonly dataChecksumVersion: number;
}

/**
 * Offsets that are the same in 13 to 18, of struct ControlFileData and, from CHECKPOINT on, of the
 * CheckPoint in it.
 *
 * @source src/include/catalog/pg_control.h of each release
 */
const SYSTEM_IDENTIFIER = 0;
const PG_CONTROL_VERSION = 8;
const CATALOG_VERSION_NO = 12;
const STATE = 16;
const TIME = 24;
const CHECKPOINT_LSN = 32;
const CHECKPOINT = 40;
const CHECKPOINT_TIMELINE = CHECKPOINT + 8;
const CHECKPOINT_PREVIOUS_TIMELINE = CHECKPOINT + 12;
const CHECKPOINT_FULL_PAGE_WRITES = CHECKPOINT + 16;
const CHECKPOINT_TIME = CHECKPOINT + 64;
const MIN_RECOVERY_LSN = 136;
const MIN_RECOVERY_TIMELINE = 144;
const BACKUP_START_LSN = 152;
const BACKUP_END_LSN = 160;
const BACKUP_END_REQUIRED = 168;
const BLOCK_BYTES = 216;
const RELATION_SEGMENT_BLOCKS = 220;
const WAL_PAGE_BYTES = 224;
const WAL_SEGMENT_BYTES = 228;
const DATA_CHECKSUM_VERSION = 252;

/** Where the CRC stands, by pg_control_version: 18 put a bool before the nonce of 32 bytes. */
const CRC_OFFSETS: ReadonlyMap<number, number> = new Map([
  [1300, 288],
  [1700, 288],
  [1800, 292],
]);

/**
 * Reads global/pg_control and verifies its CRC. Throws FormatError for a file of another release
 * or with a wrong CRC, which a file that was copied while the server wrote it can have too.
 */
export function parsePgControl(bytes: Uint8Array): PgControl {
  requireBytes(bytes, STATE);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const release = releaseOf(view);
  requireCrc(bytes, view);

  const state = STATES[view.getUint32(STATE, true)];
  if (state === undefined) {
    throw new FormatError(`pg_control has unknown state ${view.getUint32(STATE, true)}`);
  }
  return {
    majorVersion: release.majorVersion,
    catalogVersion: release.catalogVersion,
    systemId: view.getBigUint64(SYSTEM_IDENTIFIER, true),
    state,
    modifiedAtSeconds: Number(view.getBigInt64(TIME, true)),
    checkpointLsn: lsn(view.getBigUint64(CHECKPOINT_LSN, true)),
    redoLsn: lsn(view.getBigUint64(CHECKPOINT, true)),
    timeline: view.getUint32(CHECKPOINT_TIMELINE, true),
    previousTimeline: view.getUint32(CHECKPOINT_PREVIOUS_TIMELINE, true),
    hasFullPageWrites: view.getUint8(CHECKPOINT_FULL_PAGE_WRITES) !== 0,
    checkpointAtSeconds: Number(view.getBigInt64(CHECKPOINT_TIME, true)),
    minRecoveryLsn: lsn(view.getBigUint64(MIN_RECOVERY_LSN, true)),
    minRecoveryTimeline: view.getUint32(MIN_RECOVERY_TIMELINE, true),
    backupStartLsn: lsn(view.getBigUint64(BACKUP_START_LSN, true)),
    backupEndLsn: lsn(view.getBigUint64(BACKUP_END_LSN, true)),
    isBackupEndRequired: view.getUint8(BACKUP_END_REQUIRED) !== 0,
    blockBytes: view.getUint32(BLOCK_BYTES, true),
    relationSegmentBlocks: view.getUint32(RELATION_SEGMENT_BLOCKS, true),
    walPageBytes: view.getUint32(WAL_PAGE_BYTES, true),
    walSegmentBytes: view.getUint32(WAL_SEGMENT_BYTES, true),
    dataChecksumVersion: view.getUint32(DATA_CHECKSUM_VERSION, true),
  };
}

function releaseOf(view: DataView): PostgresRelease {
  const controlVersion = view.getUint32(PG_CONTROL_VERSION, true);
  const catalogVersion = view.getUint32(CATALOG_VERSION_NO, true);
  const release = RELEASES.find(
    (known) => known.controlVersion === controlVersion && known.catalogVersion === catalogVersion,
  );
  if (release !== undefined) return release;
  throw new FormatError(
    `not a pg_control of PostgreSQL ${RELEASE_RANGE}: ` +
      `version ${controlVersion}, catalog version ${catalogVersion}`,
  );
}

function requireCrc(bytes: Uint8Array, view: DataView): void {
  const offset = CRC_OFFSETS.get(view.getUint32(PG_CONTROL_VERSION, true));
  if (offset === undefined) throw new RangeError("a release without an entry in CRC_OFFSETS");
  requireBytes(bytes, offset + 4);
  const stored = view.getUint32(offset, true);
  const computed = crc32c(bytes.subarray(0, offset));
  if (stored !== computed) {
    throw new FormatError(
      `pg_control has a wrong CRC: it says 0x${stored.toString(16)}, ` +
        `its content makes 0x${computed.toString(16)}`,
    );
  }
}

function requireBytes(bytes: Uint8Array, needed: number): void {
  if (bytes.length < needed) {
    throw new TruncatedError(`pg_control needs ${needed} bytes, got ${bytes.length}`);
  }
}
