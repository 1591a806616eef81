import type { ManifestFile, ManifestHash, ManifestUnchanged } from "../layout/manifest.ts";
import { type ByPath, PathList, PathSet, PathValues } from "./path-set.ts";
import type { PathTable } from "./path-table.ts";
import { Column, WideColumn } from "./typed-column.ts";

/** A file as our manifest lists it, but for its name. */
export type ListedFile = Omit<ManifestFile, "kind" | "name">;
/** The same for one that is as it was in the base. */
export type ListedUnchanged = Omit<ManifestUnchanged, "kind" | "name">;

const WORD_DIGITS = 8;
const HASH_WORDS: Readonly<Record<ManifestHash, number>> = { xxh64: 2, sha256: 8 };
const WORD_BITS = 32n;
const WORD_MASK = 0xffffffffn;

/** What each line of a file says of it, in some 27 bytes (50 with sha256). */
class Rows {
  readonly table: PathTable;
  readonly #hashWords: number;
  /** Number of the row and 1, by the path's number. */
  readonly #rowOf = new Column(Uint32Array);
  readonly #sizes = new WideColumn();
  readonly #modes = new Column(Uint16Array);
  readonly #times = new Column(Uint32Array);
  readonly #hashes = new Column(Uint32Array);
  readonly #lacksHash = new Column(Uint8Array);
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
    return this.rowOfId(this.table.find(path));
  }

  /** The same by the path's number, or by -1. */
  rowOfId(id: number): number {
    return id < 0 ? -1 : this.#rowOf.get(id) - 1;
  }

  /** Numbers of the paths that have a row. */
  *ids(): Generator<number, void, undefined> {
    for (let id = 0, left = this.#count; left > 0; id += 1) {
      if (this.#rowOf.get(id) === 0) continue;
      left -= 1;
      yield id;
    }
  }

  /** Gives the row; the path must not have one. */
  add(id: number, { sizeBytes, mode, mtimeNs, hash }: ListedUnchanged): number {
    const row = this.#count;
    this.#count += 1;
    this.#rowOf.set(id, row + 1);
    this.#sizes.set(row, sizeBytes);
    this.#modes.set(row, mode);
    this.#times.set(2 * row, Number((mtimeNs >> WORD_BITS) & WORD_MASK));
    this.#times.set(2 * row + 1, Number(mtimeNs & WORD_MASK));
    if (hash === undefined) {
      this.#lacksHash.set(row, 1);
      return row;
    }
    for (let word = 0; word < this.#hashWords; word += 1) {
      const digits = hash.slice(word * WORD_DIGITS, (word + 1) * WORD_DIGITS);
      this.#hashes.set(row * this.#hashWords + word, Number.parseInt(digits, 16));
    }
    return row;
  }

  sizeOf(row: number): number {
    return this.#sizes.get(row);
  }

  /** Whether size and hash of a row are known to be those of another's, hashed in the same way. */
  isSameContent(row: number, other: Rows, otherRow: number): boolean {
    if (this.#hashWords !== other.#hashWords) return false;
    if (this.#lacksHash.get(row) + other.#lacksHash.get(otherRow) > 0) return false;
    if (this.sizeOf(row) !== other.sizeOf(otherRow)) return false;
    for (let word = 0; word < this.#hashWords; word += 1) {
      const own = this.#hashes.get(row * this.#hashWords + word);
      if (own !== other.#hashes.get(otherRow * this.#hashWords + word)) return false;
    }
    return true;
  }

  read(row: number): ListedUnchanged {
    this.table.noteMade();
    const time =
      (BigInt(this.#times.get(2 * row)) << WORD_BITS) + BigInt(this.#times.get(2 * row + 1));
    return {
      sizeBytes: this.#sizes.get(row),
      mode: this.#modes.get(row),
      mtimeNs: BigInt.asIntN(64, time),
      ...(this.#lacksHash.get(row) > 0 ? {} : { hash: this.#hashOf(row) }),
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

/**
 * The files in the parts of a backup, by path, in the order of their numbers; about 35 bytes each.
 */
export class ManifestFiles implements ByPath<ListedFile> {
  readonly #rows: Rows;
  readonly #parts: PathValues<string>;
  readonly #offsets = new WideColumn();
  /** With 1 added; 0 = absent. */
  readonly #fullSizes = new WideColumn();
  readonly #corrupt = new WideColumn();

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

  /** What numbers the paths. */
  get table(): PathTable {
    return this.#rows.table;
  }

  /** By the number that the table gives; -1 is never there. */
  hasId(id: number): boolean {
    return this.#rows.rowOfId(id) >= 0;
  }

  /** Numbers of the paths. */
  ids(): Iterable<number> {
    return this.#rows.ids();
  }

  /** Of the whole file; by the number of a path that is there, as all below. */
  sizeOfId(id: number): number {
    const row = this.#rows.rowOfId(id);
    const full = this.#fullSizes.get(row);
    return full === 0 ? this.#rows.sizeOf(row) : full - 1;
  }

  /** Whether the backup has changes of the file only. */
  isIncrementId(id: number): boolean {
    return this.#fullSizes.get(this.#rows.rowOfId(id)) !== 0;
  }

  partOfId(id: number): string {
    return this.#parts.getId(id) ?? "";
  }

  /** All parts that hold a file. */
  get partNames(): Iterable<string> {
    return this.#parts.values;
  }

  /** Paths of the files in each part. */
  byPart(): ReadonlyMap<string, PathList> {
    const lists = new Map<string, PathList>();
    for (const id of this.ids()) {
      const part = this.partOfId(id);
      const list = lists.get(part) ?? new PathList(this.#rows.table);
      list.pushId(id);
      lists.set(part, list);
    }
    return lists;
  }

  /** False, and nothing is changed, if the path is there already. */
  set(path: string, file: ListedFile): boolean {
    const id = this.#rows.table.add(path);
    if (this.hasId(id)) return false;
    const row = this.#rows.add(id, file);
    this.#parts.setId(id, file.part);
    this.#offsets.set(row, file.offsetBytes);
    if (file.fullBytes !== undefined) this.#fullSizes.set(row, file.fullBytes + 1);
    if (file.corruptPages !== undefined) this.#corrupt.set(row, file.corruptPages + 1);
    return true;
  }

  /** Whether a whole file is known to have the content that `unchanged` lists, by its number. */
  isSameContent(id: number, unchanged: UnchangedFiles): boolean {
    const row = this.#rows.rowOfId(id);
    if (row < 0 || this.#fullSizes.get(row) !== 0) return false;
    return unchanged.isContentOf(id, this.#rows, row);
  }

  *keys(): Generator<string, void, undefined> {
    for (const id of this.ids()) yield this.#rows.table.pathOf(id);
  }

  *[Symbol.iterator](): Generator<readonly [path: string, file: ListedFile], void, undefined> {
    for (const id of this.ids()) {
      const path = this.#rows.table.pathOf(id);
      yield [path, this.#read(path, this.#rows.rowOfId(id))];
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
 * The files of an increment that are as they were in its base, by path: about 27 bytes each, or a
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

  hasId(id: number): boolean {
    return this.#rows.rowOfId(id) >= 0 || this.#same.hasId(id);
  }

  /** Numbers of the paths. */
  *ids(): Generator<number, void, undefined> {
    yield* this.#rows.ids();
    yield* this.#same.ids();
  }

  /** By the number of a path that is there. */
  sizeOfId(id: number): number {
    if (this.#same.hasId(id)) return this.#above?.sizeOfId(id) ?? 0;
    return this.#rows.sizeOf(this.#rows.rowOfId(id));
  }

  /** False, and nothing is changed, if the path is there already. */
  set(path: string, file: ListedUnchanged): boolean {
    const id = this.#rows.table.add(path);
    if (this.hasId(id)) return false;
    const known = this.#above?.hasId(id) === true ? this.#above.get(path) : undefined;
    if (known !== undefined && isSame(known, file)) this.#same.addId(id);
    else this.#rows.add(id, file);
    return true;
  }

  /** Whether it is known that the file has size and hash of a row of another table. */
  isContentOf(id: number, rows: Rows, row: number): boolean {
    if (this.#same.hasId(id)) return this.#above?.isContentOf(id, rows, row) === true;
    const own = this.#rows.rowOfId(id);
    return own >= 0 && this.#rows.isSameContent(own, rows, row);
  }

  *keys(): Generator<string, void, undefined> {
    for (const id of this.ids()) yield this.#rows.table.pathOf(id);
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
