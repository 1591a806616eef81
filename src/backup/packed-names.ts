/**
 * Names of files that are taken out one by one, in a tenth of the memory that they need as strings.
 * No name holds a NUL.
 */
export class PackedNames {
  /** UTF-8, a NUL behind each name. */
  readonly #bytes: Buffer;
  #end: number;

  /** Empties `names`, so that the strings can go. */
  constructor(names: string[]) {
    let sizeBytes = 0;
    for (const name of names) sizeBytes += Buffer.byteLength(name) + 1;
    this.#bytes = Buffer.allocUnsafeSlow(sizeBytes);
    this.#end = 0;
    for (const name of names) {
      this.#end += this.#bytes.write(name, this.#end);
      this.#bytes[this.#end] = 0;
      this.#end += 1;
    }
    names.length = 0;
  }

  /** Takes the last name out; undefined when there is none. */
  pop(): string | undefined {
    if (this.#end === 0) return undefined;
    const end = this.#end - 1;
    let start = end;
    while (start > 0 && this.#bytes[start - 1] !== 0) start -= 1;
    this.#end = start;
    return this.#bytes.toString("utf8", start, end);
  }
}
