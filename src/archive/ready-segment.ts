import {
  closeSync,
  createReadStream,
  fstatSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
} from "node:fs";
import { FormatError } from "../errors.ts";
import { localFileError } from "../io/system-error.ts";
import { checkSegmentStart, SEGMENT_HEADER_BYTES } from "../postgres/wal-segment.ts";
import type { CallOptions } from "../storage/storage.ts";
import type { Spool } from "./spool-directory.ts";

/**
 * Puts a segment that the prefetcher has ready to where recovery wants it: by a rename, or by a
 * durable copy where that is another file system. Rejects with FormatError if it is not whole, and
 * with LocalFileError: then nothing is there.
 *
 * The whole process waits for this, and each look goes to the system at once: the runtime would
 * start threads for it, which takes longer than all the rest.
 */
export async function putReadySegment(
  { name, path }: { readonly name: string; readonly path: string },
  destination: string,
  { isOnWalFileSystem, signal }: Pick<Spool, "isOnWalFileSystem"> & CallOptions,
): Promise<void> {
  requireWhole(name, path);
  try {
    if (isOnWalFileSystem) return renameSync(path, destination);
    const { writeFileDurably } = await import("../io/durable.ts");
    await writeFileDurably(destination, createReadStream(path), { signal });
    rmSync(path, { force: true });
  } catch (error) {
    throw localFileError("take", path, error);
  }
}

/** It was checked when it was fetched; that it is still the same file costs one read. */
function requireWhole(name: string, path: string): void {
  try {
    const descriptor = openSync(path, "r");
    try {
      const head = Buffer.alloc(SEGMENT_HEADER_BYTES);
      const readBytes = readSync(descriptor, head, 0, head.length, 0);
      const { segmentBytes } = checkSegmentStart(head.subarray(0, readBytes), name);
      const { size } = fstatSync(descriptor);
      if (size !== segmentBytes) throw new FormatError(`${path} has ${size} bytes`);
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    throw error instanceof FormatError ? error : localFileError("read", path, error);
  }
}
