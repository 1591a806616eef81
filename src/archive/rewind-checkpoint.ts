import { type Lsn, lsn } from "../postgres/lsn.ts";
import { WalWalker } from "../postgres/wal-record.ts";
import type { RecordSink } from "../postgres/wal-record-scan.ts";
import type { CallOptions } from "../storage/storage.ts";
import { inspectLocalWal, readLocalWal } from "./local-wal.ts";

/** @source src/include/access/xlogrecord.h, src/include/catalog/pg_control.h */
const RECORD_HEADER_BYTES = 24;
const INFO_OFFSET = 16;
const RMGR_OFFSET = 17;
const RMGR_XLOG = 0;
const INFO_MASK = 0xf0;
/** XLOG_CHECKPOINT_SHUTDOWN and XLOG_CHECKPOINT_ONLINE. */
const CHECKPOINTS: ReadonlySet<number> = new Set([0x00, 0x10]);

/**
 * Whether a checkpoint's record begins in a segment, before `endLsn`: pg_rewind reads the WAL of
 * its target from the last one before the fork on. A record that goes on in the next segment does
 * not count; then an earlier one is found. Rejects with FormatError, LocalFileError.
 *
 * @source findLastCheckpoint, src/bin/pg_rewind/parsewal.c
 */
export async function hasCheckpoint(
  wal: { readonly path: string; readonly name: string },
  endLsn: Lsn,
  { signal }: CallOptions,
): Promise<boolean> {
  const starts: number[] = [];
  const sink: RecordSink = {
    keptBytes: () => RECORD_HEADER_BYTES,
    rest() {},
    record(view, at, start) {
      if (start < 0 || view.getUint8(at + RMGR_OFFSET) !== RMGR_XLOG) return;
      if (CHECKPOINTS.has(view.getUint8(at + INFO_OFFSET) & INFO_MASK)) starts.push(start);
    },
  };
  const walker = new WalWalker(wal.name, undefined, sink);
  const local = await inspectLocalWal(wal, { signal });
  for await (const chunk of readLocalWal(local, { signal })) walker.push(chunk);
  const { startLsn } = walker.finish().header;
  return starts.some((start) => lsn(startLsn + BigInt(start)) < endLsn);
}
