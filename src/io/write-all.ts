import { writeSync } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { LocalFileError } from "../errors.ts";

/**
 * What is written in one call. For longer ones Linux looks for memory in large blocks, and where
 * that is a virtual machine's which it has not used lately, its host has to find it first: 60 ms of
 * a processor for 16 MiB instead of 6.
 */
export const WRITE_BYTES = 256 * 1024;

export interface WriteOptions {
  /** Given every byte once, in order, while it is written; what it throws ends that. */
  readonly alongside?: ((piece: Uint8Array) => void) | undefined;
  /** Where in the file; at the handle's own position unless given. */
  readonly position?: number;
  /**
   * Written by this thread, which can do nothing else meanwhile but has a turn between two pieces:
   * where processors are the limit, to hand a piece to another thread costs as much as to write it.
   */
  readonly isBlocking?: boolean | undefined;
}

/** Writes all of `bytes`: a file system may take less in one call. */
export async function writeAll(
  handle: FileHandle,
  bytes: Uint8Array,
  { alongside, position, isBlocking = false }: WriteOptions = {},
): Promise<void> {
  if (isBlocking) return await writeBlocking(handle, bytes, { alongside, position });
  let offset = 0;
  let handedBytes = 0;
  while (offset < bytes.length) {
    const wantedBytes = Math.min(bytes.length - offset, WRITE_BYTES);
    const place = position === undefined ? undefined : position + offset;
    const writing = handle.write(bytes, offset, wantedBytes, place);
    try {
      alongside?.(bytes.subarray(handedBytes, offset + wantedBytes));
    } finally {
      // Nobody may have the memory back before, whatever happens.
      await writing;
    }
    handedBytes = offset + wantedBytes;
    const { bytesWritten } = await writing;
    if (bytesWritten === 0) throw new LocalFileError("the file system takes no more bytes");
    offset += bytesWritten;
  }
}

async function writeBlocking(
  { fd }: FileHandle,
  bytes: Uint8Array,
  { alongside, position }: Pick<WriteOptions, "alongside"> & { position: number | undefined },
): Promise<void> {
  for (let offset = 0; offset < bytes.length;) {
    const piece = bytes.subarray(offset, offset + WRITE_BYTES);
    const place = position === undefined ? null : position + offset;
    const writtenBytes = writeSync(fd, piece, 0, piece.length, place);
    if (writtenBytes === 0) throw new LocalFileError("the file system takes no more bytes");
    alongside?.(piece.subarray(0, writtenBytes));
    offset += writtenBytes;
    await new Promise<void>((resolve) => void setImmediate(resolve));
  }
}
