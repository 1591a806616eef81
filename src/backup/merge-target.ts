import { ByteCursor } from "../io/byte-cursor.ts";
import type { ByteStream } from "../io/bytes.ts";
import type { StreamedFile } from "./entry-packer.ts";
import type { EntryContent } from "./increment.ts";
import { PAGE_BYTES } from "./increment-header.ts";
import type { MergePages, PatchedFile } from "./merge-pages.ts";
import type { PageGaps } from "./page-gaps.ts";
import type { ExtractTarget } from "./part-extract.ts";

/** Pages of a file that are put together at once: 128 KiB. */
const PAGES_PER_CHUNK = 16;

export interface MergeTargetOptions {
  /** With all increments in it. */
  readonly pages: MergePages;
  readonly tablespaces: ReadonlySet<string>;
  /** Takes a finished file; its content has to be read before the promise resolves. */
  readonly onFile: (file: MergedFile) => Promise<void>;
  /** Of the newest backup's parts. */
  readonly onDirectory: (path: string, mode: number) => void;
}

/** A file of the merged backup. */
export interface MergedFile extends Pick<StreamedFile, "sizeBytes" | "mode" | "content"> {
  readonly path: string;
}

type OnChunk = (chunk: Uint8Array) => void;

/** Takes the whole files of a chain, and lays over each the pages that newer backups have of it. */
export class MergeTarget implements ExtractTarget {
  readonly #options: MergeTargetOptions;

  constructor(options: MergeTargetOptions) {
    this.#options = options;
  }

  isTablespaceRoot(path: string): boolean {
    return this.#options.tablespaces.has(path);
  }

  addDirectory(path: string, mode: number): void {
    this.#options.onDirectory(path, mode);
  }

  async addPages(path: string): Promise<PageGaps> {
    return await Promise.reject(new Error(`${path} is an increment`));
  }

  async writeFile(path: string, mode: number, entry: EntryContent, onChunk: OnChunk) {
    const { sizeBytes } = entry;
    const content = (): ByteStream => observed(entry.content, onChunk);
    await this.#options.onFile({ path, mode, sizeBytes, content });
  }

  async fillFile(
    path: string,
    entry: EntryContent,
    missing: PageGaps,
    onChunk: OnChunk,
  ): Promise<PageGaps> {
    const patched = this.#options.pages.files.get(path);
    if (patched === undefined) throw new Error(`${path} has no increment`);
    const { sizeBytes, mode } = patched;
    const content = (): ByteStream => this.#merged(patched, entry, missing, onChunk);
    await this.#options.onFile({ path, mode, sizeBytes, content });
    const gaps = missing.copy();
    const blockCount = Math.ceil(entry.sizeBytes / PAGE_BYTES);
    for (let block = 0; block < blockCount; block += 1) gaps.close(block);
    gaps.endAt(blockCount);
    return gaps;
  }

  /** The bytes that a restore of the chain would leave. Reads the older file to its end. */
  async *#merged(
    patched: PatchedFile,
    entry: EntryContent,
    missing: PageGaps,
    onChunk: OnChunk,
  ): ByteStream {
    const { pages } = this.#options;
    const positions = pages.positionsOf(patched);
    const older = new ByteCursor(entry.content, "file");
    const base = Buffer.allocUnsafe(PAGES_PER_CHUNK * PAGE_BYTES);
    const chunk = Buffer.allocUnsafe(base.length);
    const endBytes = Math.max(patched.sizeBytes, entry.sizeBytes);
    for (let at = 0; at < endBytes; at += chunk.length) {
      const baseBytes = Math.max(0, Math.min(base.length, entry.sizeBytes - at));
      await older.fill(base.subarray(0, baseBytes));
      if (baseBytes > 0) onChunk(base.subarray(0, baseBytes));
      base.fill(0, baseBytes);
      chunk.fill(0);
      for (let start = 0; start < chunk.length; start += PAGE_BYTES) {
        const block = (at + start) / PAGE_BYTES;
        const position = positions.get(block);
        const page = chunk.subarray(start, start + PAGE_BYTES);
        if (position !== undefined) pages.readPage(page, position);
        else if (missing.isMissing(block)) base.copy(page, 0, start, start + PAGE_BYTES);
      }
      const bytes = chunk.subarray(0, Math.max(0, Math.min(chunk.length, patched.sizeBytes - at)));
      if (bytes.length > 0) yield bytes;
    }
  }
}

async function* observed(stream: ByteStream, onChunk: OnChunk): ByteStream {
  for await (const chunk of stream) {
    onChunk(chunk);
    yield chunk;
  }
}
