import type { ChangedBlocks, ForkPlace } from "./changed-blocks.ts";
import type { RecordDecoder } from "./record-decoder.ts";
import type { RelationFork } from "./relation-file.ts";

/** Resource managers whose records can change files without naming blocks, or say wal_level. */
const RMGR_XLOG = 0;
const RMGR_XACT = 1;
const RMGR_SMGR = 2;
const RMGR_DBASE = 4;

/** XLR_SPECIAL_REL_UPDATE: the record changes files in a way that its blocks do not tell. */
const SPECIAL_UPDATE = 0x01;
/** XLR_RMGR_INFO_MASK */
const INFO_MASK = 0xf0;
const FORKS = ["main", "fsm", "vm", "init"] as const;

/**
 * For the headers of a record a thousandth would do; but WAL-G's deltas want the beginning of a
 * record in full, and few records are longer.
 */
const KEPT_BYTES = 1024 * 1024;

/**
 * How many of a record's first bytes `noteRecord` needs. Records whose main data tells something
 * are wanted whole.
 */
export function neededBytes(head: DataView): number {
  const rmgr = head.getUint8(17);
  const isWholeWanted = rmgr <= RMGR_SMGR || rmgr === RMGR_DBASE;
  return isWholeWanted ? head.getUint32(0, true) : KEPT_BYTES;
}

/**
 * Notes what the record changes. Gives undefined, or why nobody can tell from this WAL what has
 * changed: the server wrote with wal_level=minimal, or the record changes files in an unknown way.
 *
 * @source SummarizeDbaseRecord and its neighbours, src/backend/postmaster/walsummarizer.c (17);
 *   extractPageInfo, src/bin/pg_rewind/parsexlog.c
 */
export function noteRecord(
  record: RecordDecoder,
  majorVersion: number,
  changes: ChangedBlocks,
): string | undefined {
  for (let index = 0; index < record.blockCount; index += 1) {
    const reference = record.blocks[index];
    if (reference !== undefined) changes.addBlock(reference, reference.block);
  }
  try {
    return noteMainData(record, majorVersion, changes);
  } catch (error) {
    // Of a DataView: the main data ends before what this kind of record has.
    if (!(error instanceof RangeError)) throw error;
    return `${describe(record)} with ${record.mainDataBytes} bytes, too few for what it is`;
  }
}

function noteMainData(
  record: RecordDecoder,
  majorVersion: number,
  changes: ChangedBlocks,
): string | undefined {
  const { rmgr } = record;
  if (rmgr === RMGR_XLOG) {
    if (!isMinimal(record, majorVersion)) return unknownUpdate(record);
    return "the server wrote with wal_level=minimal";
  }
  if (rmgr === RMGR_XACT) return noteTransactionEnd(record, changes);
  if (rmgr === RMGR_SMGR) return noteStorage(record, changes);
  if (rmgr === RMGR_DBASE) return noteDatabase(record, majorVersion, changes);
  return unknownUpdate(record);
}

function unknownUpdate(record: RecordDecoder): string | undefined {
  if ((record.info & SPECIAL_UPDATE) === 0) return undefined;
  return `${describe(record)} changes files in a way that we do not know`;
}

function describe({ rmgr, info }: RecordDecoder): string {
  return `a record of resource manager ${rmgr}, info 0x${info.toString(16)},`;
}

/** From 17 on every checkpoint says the level; before, only its change is told. */
const LEVEL_IN_CHECKPOINTS_SINCE = 17;
const XLOG_CHECKPOINT_SHUTDOWN = 0x00;
const XLOG_PARAMETER_CHANGE = 0x60;
const XLOG_END_OF_RECOVERY = 0x90;
const XLOG_CHECKPOINT_REDO = 0xe0;
const WAL_LEVEL_MINIMAL = 0;

/** Offsets of wal_level. @source CheckPoint, pg_control.h; xl_*, access/xlog_internal.h */
const LEVEL_OFFSETS: ReadonlyMap<number, number> = new Map([
  [XLOG_CHECKPOINT_SHUTDOWN, 20],
  [XLOG_END_OF_RECOVERY, 16],
  [XLOG_CHECKPOINT_REDO, 0],
]);
const PARAMETER_LEVEL_OFFSET = 20;

function isMinimal(record: RecordDecoder, majorVersion: number): boolean {
  const kind = record.info & INFO_MASK;
  let offset: number | undefined;
  if (kind === XLOG_PARAMETER_CHANGE) offset = PARAMETER_LEVEL_OFFSET;
  else if (majorVersion >= LEVEL_IN_CHECKPOINTS_SINCE) offset = LEVEL_OFFSETS.get(kind);
  return offset !== undefined && record.mainData.getInt32(offset, true) === WAL_LEVEL_MINIMAL;
}

const SMGR_CREATE = 0x10;
const SMGR_TRUNCATE = 0x20;
const TRUNCATE_HEAP = 0x0001;

/** @source xl_smgr_create, xl_smgr_truncate, src/include/catalog/storage_xlog.h */
function noteStorage(record: RecordDecoder, changes: ChangedBlocks): string | undefined {
  const data = record.mainData;
  const kind = record.info & INFO_MASK;
  if (kind === SMGR_CREATE) {
    const fork = FORKS[data.getUint32(12, true)];
    if (fork === undefined) return `${describe(record)} has an unknown fork`;
    changes.cutFork(placeAt(data, 0, fork), 0);
    return undefined;
  }
  if (kind === SMGR_TRUNCATE) {
    const blockCount = data.getUint32(0, true);
    const cutsMain = (data.getUint32(16, true) & TRUNCATE_HEAP) !== 0;
    if (cutsMain) changes.cutFork(placeAt(data, 4, "main"), blockCount);
    return undefined;
  }
  return unknownUpdate(record);
}

function placeAt(data: DataView, at: number, fork: RelationFork): ForkPlace {
  return {
    tablespaceOid: data.getUint32(at, true),
    databaseOid: data.getUint32(at + 4, true),
    relfilenode: data.getUint32(at + 8, true),
    fork,
  };
}

/** 15 put XLOG_DBASE_CREATE_WAL_LOG between create and drop. */
const DBASE_SINCE_15: ReadonlyMap<number, "create" | "drop"> = new Map([
  [0x00, "create"],
  [0x10, "create"],
  [0x20, "drop"],
]);
const DBASE_BEFORE_15: ReadonlyMap<number, "create" | "drop"> = new Map([
  [0x00, "create"],
  [0x10, "drop"],
]);

/**
 * Files are copied without a word about them: all of the database counts as new there. What was
 * removed may come back under the same number.
 *
 * @source xl_dbase_*_rec, src/include/commands/dbcommands_xlog.h
 */
function noteDatabase(
  record: RecordDecoder,
  majorVersion: number,
  changes: ChangedBlocks,
): string | undefined {
  const kinds = majorVersion >= 15 ? DBASE_SINCE_15 : DBASE_BEFORE_15;
  const kind = kinds.get(record.info & INFO_MASK);
  if (kind === undefined) return unknownUpdate(record);
  const data = record.mainData;
  const databaseOid = data.getUint32(0, true);
  if (kind === "create") {
    changes.replaceDatabase(data.getUint32(4, true), databaseOid);
    return undefined;
  }
  const count = data.getUint32(4, true);
  requireEnd(data, 8 + 4 * count);
  for (let index = 0; index < count; index += 1) {
    changes.replaceDatabase(data.getUint32(8 + 4 * index, true), databaseOid);
  }
  return undefined;
}

/** XLOG_XACT_OPMASK: what has no relations to remove is not listed. */
const XACT_KIND = 0x70;
const XACT_PREPARE = 0x10;
const XACT_ENDS: ReadonlySet<number> = new Set([0x00, 0x20, 0x30, 0x40]);
const XACT_HAS_INFO = 0x80;
const XINFO_HAS_DATABASE = 0x01;
const XINFO_HAS_SUBTRANSACTIONS = 0x02;
const XINFO_HAS_RELATIONS = 0x04;

/**
 * A commit removes the relations that were dropped, an abort those that were made. One that is
 * prepared removes them when it ends.
 *
 * @source ParseCommitRecord, ParseAbortRecord, src/backend/access/rmgrdesc/xactdesc.c
 */
function noteTransactionEnd(record: RecordDecoder, changes: ChangedBlocks): string | undefined {
  const kind = record.info & XACT_KIND;
  if (!XACT_ENDS.has(kind)) return kind === XACT_PREPARE ? undefined : unknownUpdate(record);
  if ((record.info & XACT_HAS_INFO) === 0) return undefined;
  const data = record.mainData;
  const flags = data.getUint32(8, true);
  if ((flags & XINFO_HAS_RELATIONS) === 0) return undefined;
  let at = 12;
  if ((flags & XINFO_HAS_DATABASE) !== 0) at += 8;
  if ((flags & XINFO_HAS_SUBTRANSACTIONS) !== 0) at += 4 + 4 * data.getUint32(at, true);
  const count = data.getUint32(at, true);
  requireEnd(data, at + 4 + 12 * count);
  for (let index = 0; index < count; index += 1) {
    changes.cutFork(placeAt(data, at + 4 + 12 * index, "main"), 0);
  }
  return undefined;
}

/** Before a loop whose length is a number that was read. */
function requireEnd(data: DataView, end: number): void {
  if (data.byteLength < end) throw new RangeError(`${data.byteLength} bytes instead of ${end}`);
}
