import { DataPageChecksum, DEFAULT_BLOCK_BYTES } from "./data-page.ts";
import { checksumModule, MODULE_PAGES } from "./page-checksum-module.ts";

/** Writes the checksums of `count` pages, the first of which is block `block`, to `out`. */
type Compute = (ptr: number, count: number, block: number, out: number) => void;

interface Machine {
  /** Pages first, then room for their checksums. */
  readonly memory: ArrayBuffer;
  readonly compute: Compute;
  readonly isFast: boolean;
}

/**
 * Computes the data checksums of many pages at memory speed, by WebAssembly where the processor
 * has vectors, else in JavaScript. Not for two callers at the same time.
 */
export class PageChecksums {
  /** Whether WebAssembly does it. */
  readonly isFast: boolean;
  readonly #pageBytes: number;
  readonly #pages: Uint8Array;
  readonly #sums: Uint16Array;
  readonly #compute: Compute;

  private constructor(pageBytes: number, { memory, compute, isFast }: Machine) {
    this.isFast = isFast;
    this.#pageBytes = pageBytes;
    this.#pages = new Uint8Array(memory, 0, MODULE_PAGES * pageBytes);
    this.#sums = new Uint16Array(memory, MODULE_PAGES * pageBytes, MODULE_PAGES);
    this.#compute = compute;
  }

  /** Compiles: about a millisecond. */
  static async create(pageBytes = DEFAULT_BLOCK_BYTES): Promise<PageChecksums> {
    const machine = await instantiate(pageBytes);
    if (machine !== undefined) return new PageChecksums(pageBytes, machine);
    return PageChecksums.inJavaScript(pageBytes);
  }

  /** The same without WebAssembly. */
  static inJavaScript(pageBytes = DEFAULT_BLOCK_BYTES): PageChecksums {
    const memory = new ArrayBuffer(MODULE_PAGES * (pageBytes + 2));
    const [view, sum] = [new DataView(memory), new DataPageChecksum(pageBytes)];
    const compute: Compute = (ptr, count, block, out) => {
      for (let index = 0; index < count; index += 1) {
        const value = sum.compute(view, ptr + index * pageBytes, block + index);
        view.setUint16(out + 2 * index, value, true);
      }
    };
    return new PageChecksums(pageBytes, { memory, compute, isFast: false });
  }

  /**
   * Calls `found` with the index of every page in `pages` whose checksum is not the one it should
   * have as block `firstBlock` + index of its fork, counted over all relation segments. New pages
   * have none and are told, too. `pages` is a whole number of pages.
   */
  findWrong(pages: Uint8Array, firstBlock: number, found: (index: number) => void): void {
    const pageBytes = this.#pageBytes;
    const view = new DataView(pages.buffer, pages.byteOffset, pages.byteLength);
    const total = pages.length / pageBytes;
    for (let first = 0; first < total; first += MODULE_PAGES) {
      const count = Math.min(MODULE_PAGES, total - first);
      this.#pages.set(pages.subarray(first * pageBytes, (first + count) * pageBytes));
      this.#compute(0, count, firstBlock + first, this.#pages.length);
      for (let index = 0; index < count; index += 1) {
        const stored = view.getUint16((first + index) * pageBytes + CHECKSUM_OFFSET, true);
        if (stored !== this.#sums[index]) found(first + index);
      }
    }
  }
}

/** What of the runtime's WebAssembly is used; its types are none of Node.js's. */
declare const WebAssembly: {
  instantiate(bytes: Uint8Array): Promise<{
    readonly instance: { readonly exports: Readonly<Record<string, unknown>> };
  }>;
};

/** pd_checksum. @source PageHeaderData, src/include/storage/bufpage.h */
const CHECKSUM_OFFSET = 8;

async function instantiate(pageBytes: number): Promise<Machine | undefined> {
  try {
    const { instance } = await WebAssembly.instantiate(checksumModule(pageBytes));
    const { memory, checksums } = instance.exports;
    const buffer = memory instanceof Object && "buffer" in memory ? memory.buffer : undefined;
    if (!(buffer instanceof ArrayBuffer) || typeof checksums !== "function") return undefined;
    return {
      isFast: true,
      memory: buffer,
      compute: (ptr, count, block, out) => void checksums(ptr, count, block, out),
    };
  } catch {
    return undefined;
  }
}
