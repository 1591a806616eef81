import type { ManifestFile, ManifestHash, ManifestUnchanged } from "../layout/manifest.ts";
import { type ByPath, PathSet, PathValues } from "./path-set.ts";
import type { PathTable } from "./path-table.ts";
import { Column } from "./typed-column.ts";

/** A file as our manifest lists it, but for its name. */
export type ListedFile = Omit<ManifestFile, "kind" | "name">;
/** The same for one that is as it was in the base. */
export type ListedUnchanged = Omit<ManifestUnchanged, "kind" | "name">;

/** What most readers want of a file. */
export interface BriefFile {
  readonly path: string;
  /** Of the whole file. */
  readonly sizeBytes: number;
  /** Whether the backup has changes of it only. */
  readonly isIncrement: boolean;
}

const WORD_DIGITS = 8;
const HASH_WORDS: Readonly<Record<ManifestHash, number>> = { xxh64: 2, sha256: 8 };
const WORD_BITS = 32n;
const WORD_MASK = 0xffffffffn;

/** What each line of a file says of it, in some 35 bytes (60 with sha256). */
class Rows {
  readonly table: PathTable;
  readonly #hashWords: number;
  /** Number of the row and 1, by the path's number. */
  readonly #rowOf = new Column(Uint32Array);
  readonly #ids = new Column(Uint32Array);
  readonly #sizes = new Column(Float64Array);
  readonly #modes = new Column(Uint16Array);
  readonly #times = new Column(Uint32Array);
  readonly #hashes = new Column(Uint32Array);
  readonly #hasHash = new Column(Uint8Array);
  #count = 0;

  constructor(table: PathTable, hash: ManifestHash) {
    this.table = table;
    this.#hashWords = HASH_WORDS[hash];
  }

  get count(): number {
    return this.#count;
  }

  /** -1 for a path that has none. */
  rowOf(path: string): number {
    const id = this.table.find(path);
    return id < 0 ? -1 : this.#rowOf.get(id) - 1;
  }

  pathOf(row: number): string {
    return this.table.pathOf(this.#ids.get(row));
  }

  /** Gives the row; the path must not have one. */
  add(path: string, { sizeBytes, mode, mtimeNs, hash }: ListedUnchanged): number {
    const row = this.#count;
    const id = this.table.add(path);
    this.#count += 1;
    this.#rowOf.set(id, row + 1);
    this.#ids.set(row, id);
    this.#sizes.set(row, sizeBytes);
    this.#modes.set(row, mode);
    this.#times.set(2 * row, Number((mtimeNs >> WORD_BITS) & WORD_MASK));
    this.#times.set(2 * row + 1, Number(mtimeNs & WORD_MASK));
    if (hash === undefined) return row;
    this.#hasHash.set(row, 1);
    for (let word = 0; word < this.#hashWords; word += 1) {
      const digits = hash.slice(word * WORD_DIGITS, (word + 1) * WORD_DIGITS);
      this.#hashes.set(row * this.#hashWords + word, Number.parseInt(digits, 16));
    }
    return row;
  }

  sizeOf(row: number): number {
    return this.#sizes.get(row);
  }

  read(row: number): ListedUnchanged {
    this.table.noteMade();
    const time =
      (BigInt(this.#times.get(2 * row)) << WORD_BITS) + BigInt(this.#times.get(2 * row + 1));
    return {
      sizeBytes: this.#sizes.get(row),
      mode: this.#modes.get(row),
      mtimeNs: BigInt.asIntN(64, time),
      ...(this.#hasHash.get(row) === 0 ? {} : { hash: this.#hashOf(row) }),
    };
  }

  #hashOf(row: number): string {
    let hash = "";
    for (let word = 0; word < this.#hashWords; word += 1) {
      const digits = this.#hashes.get(row * this.#hashWords + word).toString(16);
      hash += digits.padStart(WORD_DIGITS, "0");
    }
    return hash;
  }
}

/** The files in the parts of a backup, by path; about 50 bytes each. */
export class ManifestFiles implements ByPath<ListedFile> {
  readonly #rows: Rows;
  readonly #parts: PathValues<string>;
  readonly #offsets = new Column(Float64Array);
  /** With 1 added; 0 = absent. */
  readonly #fullSizes = new Column(Float64Array);
  readonly #corrupt = new Column(Float64Array);

  constructor(table: PathTable, hash: ManifestHash) {
    this.#rows = new Rows(table, hash);
    this.#parts = new PathValues(table);
  }

  get size(): number {
    return this.#rows.count;
  }

  has(path: string): boolean {
    return this.#rows.rowOf(path) >= 0;
  }

  get(path: string): ListedFile | undefined {
    const row = this.#rows.rowOf(path);
    return row < 0 ? undefined : this.#read(path, row);
  }

  /** Without what takes longer to tell. */
  *brief(): Generator<BriefFile, void, undefined> {
    for (let row = 0; row < this.#rows.count; row += 1) {
      const full = this.#fullSizes.get(row);
      const sizeBytes = full === 0 ? this.#rows.sizeOf(row) : full - 1;
      yield { path: this.#rows.pathOf(row), sizeBytes, isIncrement: full !== 0 };
    }
  }

  /** Part of each file. */
  get parts(): ByPath<string> {
    return this.#parts;
  }

  /** The path must not be there. */
  set(path: string, file: ListedFile): void {
    const row = this.#rows.add(path, file);
    this.#parts.set(path, file.part);
    this.#offsets.set(row, file.offsetBytes);
    if (file.fullBytes !== undefined) this.#fullSizes.set(row, file.fullBytes + 1);
    if (file.corruptPages !== undefined) this.#corrupt.set(row, file.corruptPages + 1);
  }

  *keys(): Generator<string, void, undefined> {
    for (let row = 0; row < this.#rows.count; row += 1) yield this.#rows.pathOf(row);
  }

  *[Symbol.iterator](): Generator<readonly [path: string, file: ListedFile], void, undefined> {
    for (let row = 0; row < this.#rows.count; row += 1) {
      const path = this.#rows.pathOf(row);
      yield [path, this.#read(path, row)];
    }
  }

  #read(path: string, row: number): ListedFile {
    const [full, corrupt] = [this.#fullSizes.get(row), this.#corrupt.get(row)];
    const { hash = "", ...content } = this.#rows.read(row);
    return {
      ...content,
      hash,
      part: this.#parts.get(path) ?? "",
      offsetBytes: this.#offsets.get(row),
      ...(full === 0 ? {} : { fullBytes: full - 1 }),
      ...(corrupt === 0 ? {} : { corruptPages: corrupt - 1 }),
    };
  }
}

/**
 * The files of an increment that are as they were in its base, by path: about 35 bytes each, or a
 * bit where the increment on top of it says the same.
 */
export class UnchangedFiles implements ByPath<ListedUnchanged> {
  readonly #rows: Rows;
  readonly #above: UnchangedFiles | undefined;
  /** Those of which `#above` tells the same. */
  readonly #same: PathSet;

  /** `above` is that of the increment on top: of the same table, with hashes of the same kind. */
  constructor(table: PathTable, hash: ManifestHash, above?: UnchangedFiles) {
    this.#rows = new Rows(table, hash);
    this.#above = above;
    this.#same = new PathSet(table);
  }

  get size(): number {
    return this.#rows.count + this.#same.size;
  }

  has(path: string): boolean {
    return this.#rows.rowOf(path) >= 0 || this.#same.has(path);
  }

  get(path: string): ListedUnchanged | undefined {
    if (this.#same.has(path)) return this.#above?.get(path);
    const row = this.#rows.rowOf(path);
    return row < 0 ? undefined : this.#rows.read(row);
  }

  /** The path must not be there. */
  set(path: string, file: ListedUnchanged): void {
    const known = this.#above?.get(path);
    if (known !== undefined && isSame(known, file)) this.#same.add(path);
    else this.#rows.add(path, file);
  }

  *keys(): Generator<string, void, undefined> {
    for (let row = 0; row < this.#rows.count; row += 1) yield this.#rows.pathOf(row);
    yield* this.#same;
  }

  *[Symbol.iterator](): Generator<readonly [path: string, file: ListedUnchanged], void, undefined> {
    for (const path of this.keys()) {
      const file = this.get(path);
      if (file !== undefined) yield [path, file];
    }
  }
}

function isSame(one: ListedUnchanged, other: ListedUnchanged): boolean {
  return (
    one.sizeBytes === other.sizeBytes &&
    one.mode === other.mode &&
    one.mtimeNs === other.mtimeNs &&
    one.hash === other.hash
  );
}
