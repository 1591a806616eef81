import { FormatError } from "../errors.ts";

/** RM_XACT_ID: the resource manager of transactions. @source src/include/access/rmgrlist.h */
export const RMGR_TRANSACTION = 1;

/** A relation's files, all forks. */
export interface RelationPlace {
  readonly tablespaceOid: number;
  /** 0 for what all databases share. */
  readonly databaseOid: number;
  readonly relfilenode: number;
}

/** What a commit or an abort says of its transaction. */
export interface TransactionEnd {
  readonly kind: "commit" | "abort";
  /** The top-level transaction; 0 for one that had no number (it changed nothing visible). */
  readonly xid: number;
  /** Microseconds since 2000-01-01 00:00 UTC, by the server's clock. */
  readonly atUs: bigint;
  readonly subXids: readonly number[];
  /** Files that are removed now: a dropped, truncated or rewritten relation, its indexes, TOAST. */
  readonly removedFiles: readonly RelationPlace[];
  /**
   * Relations that are dropped now, by OID; undefined before 15, which does not tell. A relation
   * whose files are removed and that is not among these lives on in new files.
   */
  readonly droppedRelations: readonly DroppedRelation[] | undefined;
}

export interface DroppedRelation {
  readonly databaseOid: number;
  readonly relationOid: number;
}

/** XLOG_XACT_OPMASK and its values. @source src/include/access/xact.h */
const OPERATION_MASK = 0x70;
const OPERATIONS: ReadonlyMap<number, TransactionEnd["kind"]> = new Map([
  [0x00, "commit"],
  [0x20, "abort"],
  [0x30, "commit"],
  [0x40, "abort"],
]);
const HAS_INFO = 0x80;

/** XACT_XINFO_*, in the order in which their parts stand in the record. */
const HAS_DATABASE = 1 << 0;
const HAS_SUBTRANSACTIONS = 1 << 1;
const HAS_FILES = 1 << 2;
const HAS_INVALIDATIONS = 1 << 3;
const HAS_TWO_PHASE = 1 << 4;
const HAS_DROPPED_STATISTICS = 1 << 8;

const STATISTICS_SINCE = 15;
/** From 18 on an object's number has 64 bits. */
const WIDE_STATISTICS_SINCE = 18;
/** PGSTAT_KIND_RELATION, the same in 15 to 18. @source src/include/utils/pgstat_kind.h */
const RELATION_STATISTICS = 2;
const INVALIDATION_BYTES = 16;

/** How a transaction record is to be read. */
export interface TransactionRecord {
  /** All 8 bits. */
  readonly info: number;
  /** Of the record's header. */
  readonly xid: number;
  readonly mainData: DataView;
  readonly majorVersion: number;
}

/**
 * Reads a record of the transaction manager; undefined for one that ends no transaction. Throws
 * FormatError when it is cut off.
 *
 * @source ParseCommitRecord, ParseAbortRecord, src/backend/access/rmgrdesc/xactdesc.c
 */
export function parseTransactionEnd(record: TransactionRecord): TransactionEnd | undefined {
  const kind = OPERATIONS.get(record.info & OPERATION_MASK);
  if (kind === undefined) return undefined;
  const reader = new Reader(record.mainData);
  const atUs = reader.i64();
  const parts = (record.info & HAS_INFO) === 0 ? 0 : reader.u32();
  if ((parts & HAS_DATABASE) !== 0) reader.skip(8);
  const subXids = (parts & HAS_SUBTRANSACTIONS) === 0 ? [] : reader.list(() => reader.u32());
  const removedFiles =
    (parts & HAS_FILES) === 0
      ? []
      : reader.list(() => ({
          tablespaceOid: reader.u32(),
          databaseOid: reader.u32(),
          relfilenode: reader.u32(),
        }));
  const droppedRelations =
    record.majorVersion < STATISTICS_SINCE
      ? undefined
      : (parts & HAS_DROPPED_STATISTICS) === 0
        ? []
        : readDropped(reader, record.majorVersion);
  if (kind === "commit" && (parts & HAS_INVALIDATIONS) !== 0) {
    reader.skip(INVALIDATION_BYTES * reader.u32());
  }
  const twoPhaseXid = (parts & HAS_TWO_PHASE) === 0 ? undefined : reader.u32();
  const xid = twoPhaseXid ?? record.xid;
  return { kind, xid, atUs, subXids, removedFiles, droppedRelations };
}

/** @source xl_xact_stats_item, src/include/access/xact.h */
function readDropped(reader: Reader, majorVersion: number): readonly DroppedRelation[] {
  const items = reader.list(() => {
    const kind = reader.u32();
    const databaseOid = reader.u32();
    const relationOid = reader.u32();
    if (majorVersion >= WIDE_STATISTICS_SINCE) reader.skip(4);
    return { kind, databaseOid, relationOid };
  });
  return items
    .filter(({ kind }) => kind === RELATION_STATISTICS)
    .map(({ databaseOid, relationOid }) => ({ databaseOid, relationOid }));
}

const EPOCH_DIFFERENCE_US = 946_684_800_000_000n;

/** A server's timestamp as nanoseconds since 1970. */
export function timestampNs(atUs: bigint): bigint {
  return (atUs + EPOCH_DIFFERENCE_US) * 1000n;
}

/** Reads numbers one behind the other. */
class Reader {
  readonly #view: DataView;
  #at = 0;

  constructor(view: DataView) {
    this.#view = view;
  }

  skip(count: number): void {
    this.#at += count;
    if (this.#at > this.#view.byteLength) {
      throw new FormatError(`transaction record ends after ${this.#view.byteLength} bytes`);
    }
  }

  u32(): number {
    this.skip(4);
    return this.#view.getUint32(this.#at - 4, true);
  }

  i64(): bigint {
    this.skip(8);
    return this.#view.getBigInt64(this.#at - 8, true);
  }

  /** A count, then so many items; each takes 4 bytes at least. */
  list<T>(read: () => T): T[] {
    const count = this.u32();
    if (count * 4 > this.#view.byteLength - this.#at) {
      throw new FormatError(`transaction record has a list of ${count} items`);
    }
    return Array.from({ length: count }, read);
  }
}
