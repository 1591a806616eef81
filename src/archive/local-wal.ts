import { fstatSync } from "node:fs";
import { type FileHandle, open, readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { FormatError, LocalFileError, systemErrorCode } from "../errors.ts";
import { type ByteStream, CHUNK_BYTES, readAll } from "../io/bytes.ts";
import { localFileError } from "../io/system-error.ts";
import { parseBackupLabel } from "../postgres/backup-label.ts";
import type { Lsn } from "../postgres/lsn.ts";
import type { PgControl } from "../postgres/pg-control.ts";
import { parseTimelineHistory } from "../postgres/timeline-history.ts";
import {
  formatSegmentName,
  parseWalFileName,
  segmentOfEnd,
  type WalFile,
} from "../postgres/wal-file.ts";
import { WalWalker } from "../postgres/wal-record.ts";
import type { OpenRecord } from "../postgres/wal-record-scan.ts";
import {
  checkSegmentStart,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
} from "../postgres/wal-segment.ts";
import type { CallOptions } from "../storage/storage.ts";
import { readControlFile } from "./control-file.ts";

/** "other" for names that are none of PostgreSQL's. */
export type WalKind = WalFile["kind"] | "other";

/** A file that may be archived: what it claims to be by its name has been checked. */
export interface LocalWal {
  readonly name: string;
  readonly path: string;
  readonly kind: WalKind;
  readonly sizeBytes: number;
  /** From the segment's header, else from the data directory it stands in; undefined if unknown. */
  readonly systemId: bigint | undefined;
}

/** Real history files have a line a timeline. */
export const HISTORY_BYTES_MAX = 4 * 1024 * 1024;

/**
 * Looks at a file that is to be archived. Rejects with FormatError when it is named like a segment
 * or a history but is not that, with LocalFileError when it can't be read.
 */
export async function inspectLocalWal(
  { path, name }: { readonly path: string; readonly name: string },
  options: CallOptions,
): Promise<LocalWal> {
  const file = parseWalFileName(name);
  const kind: WalKind = file?.kind ?? "other";
  const { sizeBytes, head } = await readHead(path);
  const local = { name, path, kind, sizeBytes };

  if (kind === "segment" || kind === "partial") {
    const header = checkSegmentStart(head, name);
    if (sizeBytes !== header.segmentBytes) {
      throw new FormatError(
        `WAL segment ${name} has ${sizeBytes} bytes, its header says ${header.segmentBytes}`,
        {
          hint:
            "PostgreSQL keeps the file and calls again. If it stays so, the file is damaged: look " +
            "at the disk, and take a new base backup once archiving goes on.",
        },
      );
    }
    return { ...local, systemId: header.systemId };
  }
  if (file?.kind === "history") {
    if (sizeBytes > HISTORY_BYTES_MAX) {
      throw new FormatError(`${name} is no timeline history: it has ${sizeBytes} bytes`);
    }
    const text = await readAll(readLocalWal({ ...local, systemId: undefined }, options));
    parseTimelineHistory(text.toString("utf8"), file.timeline);
  }
  return { ...local, systemId: kind === "other" ? undefined : await readSystemId(path) };
}

/**
 * The content, exactly as many bytes as were there when the file was inspected; rejects with
 * LocalFileError when there are fewer or more, and with `mustBeStill` also when somebody writes to
 * the file meanwhile. Each chunk is overwritten by the next one.
 */
export async function* readLocalWal(
  local: LocalWal,
  { signal, mustBeStill = false }: CallOptions & { readonly mustBeStill?: boolean },
): ByteStream {
  const { path, sizeBytes } = local;
  await using handle = await openFile(path);
  const requireUnchanged = mustBeStill ? watchContent(handle, path) : undefined;
  const buffer = Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, sizeBytes + 1));
  let position = 0;
  for (;;) {
    signal.throwIfAborted();
    const bytesRead = await readAt(handle, { buffer, position, path });
    position += bytesRead;
    if (position > sizeBytes || (bytesRead === 0 && position < sizeBytes)) {
      throw new LocalFileError(
        `${path} changed while it was read: it had ${sizeBytes} bytes, now ` +
          (position > sizeBytes ? "it has more" : `${position}`),
      );
    }
    if (bytesRead === 0) return;
    requireUnchanged?.();
    yield buffer.subarray(0, bytesRead);
  }
}

/**
 * Gives a function to call after each reading: it throws LocalFileError when somebody has written
 * to the open file since. A segment that was given up may be recycled under our hands. What the
 * system knows of an open file it answers in two microseconds; a thread of the runtime takes fifty.
 */
export function watchContent({ fd }: Pick<FileHandle, "fd">, path: string): () => void {
  const modifiedNs = (): bigint => {
    try {
      return fstatSync(fd, { bigint: true }).mtimeNs;
    } catch (error) {
      throw localFileError("read", path, error);
    }
  };
  const before = modifiedNs();
  return () => {
    if (modifiedNs() === before) return;
    throw new LocalFileError(`${path} was written to while it was read`);
  };
}

/**
 * System identifier of the data directory that a file in pg_wal belongs to; undefined when it
 * stands elsewhere or pg_control can't be read: it is only a second opinion.
 */
export async function readSystemId(walPath: string): Promise<bigint | undefined> {
  return (await readControlAround(walPath))?.systemId;
}

/** pg_control of the same data directory; undefined where there is none that can be read. */
export async function readControlAround(walPath: string): Promise<PgControl | undefined> {
  try {
    return await readControlFile(dirname(dirname(walPath)));
  } catch (error) {
    if (error instanceof LocalFileError) return undefined;
    throw error;
  }
}

/**
 * Where the recovery of the data directory that a file in pg_wal belongs to begins: by backup_label
 * as long as it is there, because pg_control may then be of a later checkpoint. Undefined where
 * neither can be read.
 */
export async function readRecoveryStart(walPath: string): Promise<Lsn | undefined> {
  const control = await readControlAround(walPath);
  try {
    const path = join(dirname(dirname(walPath)), "backup_label");
    const { startLsn } = parseBackupLabel(await readFile(path, "utf8"));
    return control === undefined || startLsn < control.redoLsn ? startLsn : control.redoLsn;
  } catch (error) {
    if (error instanceof FormatError || systemErrorCode(error) !== undefined) {
      return control?.redoLsn;
    }
    throw error;
  }
}

/**
 * What the segment before left open, if it stands complete in `directory`: recovery keeps what it
 * restored there under its own name. Undefined otherwise: then that record goes unchecked.
 */
export async function readOpenRecord(
  directory: string,
  header: SegmentHeader,
  { signal }: CallOptions,
): Promise<OpenRecord | undefined> {
  const { segmentBytes, startLsn, timeline } = header;
  if (header.continuationBytes === 0 || startLsn === 0n) return undefined;
  const name = formatSegmentName(timeline, segmentOfEnd(startLsn, segmentBytes), segmentBytes);
  try {
    const walker = new WalWalker(name);
    const local = await inspectLocalWal({ path: join(directory, name), name }, { signal });
    for await (const chunk of readLocalWal(local, { signal })) walker.push(chunk);
    walker.finish();
    return local.systemId === header.systemId ? walker.openRecord : undefined;
  } catch (error) {
    if (error instanceof FormatError || error instanceof LocalFileError) return undefined;
    throw error;
  }
}

/** As much as a segment's header takes. Rejects with LocalFileError. */
export async function readHead(path: string): Promise<{ sizeBytes: number; head: Uint8Array }> {
  // Before it is opened: opening a pipe would wait for its writer.
  const stats = await onFile(path, () => stat(path));
  if (!stats.isFile()) throw new LocalFileError(`cannot archive ${path}: it is no regular file`);
  await using handle = await openFile(path);
  const buffer = Buffer.alloc(SEGMENT_HEADER_BYTES);
  const bytesRead = await readAt(handle, { buffer, position: 0, path });
  return { sizeBytes: stats.size, head: buffer.subarray(0, bytesRead) };
}

async function openFile(path: string): Promise<FileHandle> {
  return await onFile(path, () => open(path, "r"));
}

/** Fills the buffer as far as the file goes. */
async function readAt(
  handle: FileHandle,
  { buffer, position, path }: { buffer: Buffer; position: number; path: string },
): Promise<number> {
  let filled = 0;
  while (filled < buffer.length) {
    const { bytesRead } = await onFile(path, () =>
      handle.read(buffer, filled, buffer.length - filled, position + filled),
    );
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return filled;
}

async function onFile<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw localFileError("read", path, error);
  }
}
