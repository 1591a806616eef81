import { free } from "../io/freed.ts";
import { collectGarbage } from "../io/runtime.ts";

/** Names as strings that may wait for the collector. */
const NAMES_PER_COLLECTION = 4096;

/**
 * Names of files that are taken out one by one, in the order of their bytes, in a tenth of the
 * memory that they need as strings. No name holds a NUL.
 */
export class PackedNames {
  /** UTF-8, a NUL behind each name. */
  readonly #bytes: Buffer;
  /** Where each name begins, in their order. */
  readonly #starts: Uint32Array;
  #taken = 0;

  /** Empties `names`, so that the strings can go: before they are sorted, which needs room, too. */
  constructor(names: string[]) {
    let sizeBytes = 0;
    for (const name of names) sizeBytes += Buffer.byteLength(name) + 1;
    const bytes = Buffer.allocUnsafeSlow(sizeBytes);
    this.#bytes = bytes;
    this.#starts = new Uint32Array(names.length);
    let end = 0;
    for (const [index, name] of names.entries()) {
      this.#starts[index] = end;
      end += bytes.write(name, end);
      bytes[end] = 0;
      end += 1;
    }
    names.length = 0;
    if (this.#starts.length >= NAMES_PER_COLLECTION) collectGarbage();
    this.#starts.sort((one, other) => compare(bytes, one, other));
  }

  /** Takes the first name out; undefined when there is none. */
  next(): string | undefined {
    const start = this.#starts[this.#taken];
    if (start === undefined) return undefined;
    this.#taken += 1;
    const name = this.#bytes.toString("utf8", start, this.#bytes.indexOf(0, start));
    if (this.#taken === this.#starts.length) free(this.#bytes);
    return name;
  }
}

function compare(bytes: Buffer, one: number, other: number): number {
  for (let at = 0; ; at += 1) {
    const left = bytes[one + at] ?? 0;
    const right = bytes[other + at] ?? 0;
    if (left !== right || left === 0) return left - right;
  }
}
