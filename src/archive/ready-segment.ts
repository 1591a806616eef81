import { open, rename, rm } from "node:fs/promises";
import { FormatError } from "../errors.ts";
import { localFileError } from "../io/system-error.ts";
import { checkSegmentStart, SEGMENT_HEADER_BYTES } from "../postgres/wal-segment.ts";
import type { CallOptions } from "../storage/storage.ts";
import type { Spool } from "./spool-directory.ts";

/**
 * Puts a segment that the prefetcher has ready to where recovery wants it: by a rename, or by a
 * durable copy where that is another file system. Rejects with FormatError if it is not whole, and
 * with LocalFileError: then nothing is there.
 */
export async function putReadySegment(
  { name, path }: { readonly name: string; readonly path: string },
  destination: string,
  { isOnWalFileSystem, signal }: Pick<Spool, "isOnWalFileSystem"> & CallOptions,
): Promise<void> {
  await requireWhole(name, path);
  try {
    if (isOnWalFileSystem) return await rename(path, destination);
    const [{ createReadStream }, { writeFileDurably }] = await Promise.all([
      import("node:fs"),
      import("../io/durable.ts"),
    ]);
    await writeFileDurably(destination, createReadStream(path), { signal });
    await rm(path, { force: true });
  } catch (error) {
    throw localFileError("take", path, error);
  }
}

/** It was checked when it was fetched; that it is still the same file costs one read. */
async function requireWhole(name: string, path: string): Promise<void> {
  try {
    await using handle = await open(path, "r");
    const head = Buffer.alloc(SEGMENT_HEADER_BYTES);
    const { bytesRead } = await handle.read(head, 0, head.length, 0);
    const { segmentBytes } = checkSegmentStart(head.subarray(0, bytesRead), name);
    const { size } = await handle.stat();
    if (size !== segmentBytes) throw new FormatError(`${path} has ${size} bytes`);
  } catch (error) {
    throw error instanceof FormatError ? error : localFileError("read", path, error);
  }
}
