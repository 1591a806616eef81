import type { ManifestFile, ManifestHash, ManifestUnchanged } from "../layout/manifest.ts";
import { type ByPath, PathList, PathSet } from "./path-set.ts";
import type { PathTable } from "./path-table.ts";
import { Column, SparseColumn, WideColumn } from "./typed-column.ts";

/** A file as our manifest lists it, but for its name. */
export type ListedFile = Omit<ManifestFile, "kind" | "name">;
/** The same for one that is as it was in the base. */
export type ListedUnchanged = Omit<ManifestUnchanged, "kind" | "name">;

const WORD_DIGITS = 8;
const HASH_WORDS: Readonly<Record<ManifestHash, number>> = { xxh64: 2, sha256: 8 };
const WORD_BITS = 32n;
const WORD_MASK = 0xffffffffn;

/** What lines of files say of them, row by row: 22 bytes each (46 with sha256). */
class Contents {
  readonly #hashWords: number;
  readonly #sizes = new WideColumn();
  readonly #modes = new Column(Uint16Array);
  readonly #times = new Column(Uint32Array);
  readonly #hashes = new Column(Uint32Array);
  readonly #lacksHash = new Column(Uint8Array);
  #count = 0;

  constructor(hash: ManifestHash) {
    this.#hashWords = HASH_WORDS[hash];
  }

  get count(): number {
    return this.#count;
  }

  /** Gives the row. */
  add({ sizeBytes, mode, mtimeNs, hash }: ListedUnchanged): number {
    const row = this.#count;
    this.#count += 1;
    this.#sizes.set(row, sizeBytes);
    this.#modes.set(row, mode);
    this.#times.set(2 * row, highWord(mtimeNs));
    this.#times.set(2 * row + 1, lowWord(mtimeNs));
    if (hash === undefined) {
      this.#lacksHash.set(row, 1);
      return row;
    }
    for (let word = 0; word < this.#hashWords; word += 1) {
      this.#hashes.set(row * this.#hashWords + word, hashWord(hash, word));
    }
    return row;
  }

  sizeOf(row: number): number {
    return this.#sizes.get(row);
  }

  modeOf(row: number): number {
    return this.#modes.get(row);
  }

  /** Whether the row says all that a line does. */
  isSame(row: number, { sizeBytes, mode, mtimeNs, hash }: ListedUnchanged): boolean {
    if (this.sizeOf(row) !== sizeBytes || this.modeOf(row) !== mode) return false;
    if (this.#times.get(2 * row + 1) !== lowWord(mtimeNs)) return false;
    if (this.#times.get(2 * row) !== highWord(mtimeNs)) return false;
    if (this.#lacksHash.get(row) > 0 || hash === undefined) {
      return this.#lacksHash.get(row) > 0 && hash === undefined;
    }
    for (let word = 0; word < this.#hashWords; word += 1) {
      if (this.#hashes.get(row * this.#hashWords + word) !== hashWord(hash, word)) return false;
    }
    return true;
  }

  /** Whether size and hash of a row are known to be those of another's, hashed in the same way. */
  isSameContent(row: number, other: Contents, otherRow: number): boolean {
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

function highWord(time: bigint): number {
  return Number((time >> WORD_BITS) & WORD_MASK);
}

function lowWord(time: bigint): number {
  return Number(time & WORD_MASK);
}

function hashWord(hash: string, word: number): number {
  return Number.parseInt(hash.slice(word * WORD_DIGITS, (word + 1) * WORD_DIGITS), 16);
}

/**
 * The files in the parts of a backup, by path, in the order of their numbers: about 34 bytes each,
 * or 12 where the increment on top says of it that it is unchanged, and the rest of its line.
 */
export class ManifestFiles implements ByPath<ListedFile> {
  /** What numbers the paths. */
  readonly table: PathTable;
  readonly #above: UnchangedFiles | undefined;
  /** Number of the row and 1, by the path's number. */
  readonly #rowOf = new SparseColumn();
  /** The same of `#contents`, where `#above` does not tell the same. */
  readonly #contentOf: SparseColumn;
  readonly #contents: Contents;
  readonly #partNumbers = new Map<string, number>();
  readonly #partNames: string[] = [];
  readonly #parts = new Column(Uint32Array);
  readonly #offsets = new WideColumn();
  /** With 1 added; 0 = absent. */
  readonly #fullSizes = new WideColumn();
  readonly #corrupt = new WideColumn();
  #count = 0;

  /** `above` is that of the increment on top: of the same table, with hashes of the same kind. */
  constructor(table: PathTable, hash: ManifestHash, above?: UnchangedFiles) {
    this.table = table;
    this.#above = above;
    this.#contents = new Contents(hash);
    // Without one above each row has a content of its own, of the same number.
    this.#contentOf = above === undefined ? this.#rowOf : new SparseColumn();
  }

  get size(): number {
    return this.#count;
  }

  has(path: string): boolean {
    return this.hasId(this.table.find(path));
  }

  get(path: string): ListedFile | undefined {
    return this.getId(this.table.find(path));
  }

  /** By the number that the table gives, as all below; -1 is never there. */
  hasId(id: number): boolean {
    return this.#rowOfId(id) >= 0;
  }

  getId(id: number): ListedFile | undefined {
    const row = this.#rowOfId(id);
    const contents = this.#contentsOf(id);
    if (row < 0 || contents === undefined) return undefined;
    this.table.noteMade();
    const [full, corrupt] = [this.#fullSizes.get(row), this.#corrupt.get(row)];
    const { hash = "", ...content } = contents.read(this.#contentRowOf(id));
    return {
      ...content,
      hash,
      part: this.partOfId(id),
      offsetBytes: this.#offsets.get(row),
      ...(full === 0 ? {} : { fullBytes: full - 1 }),
      ...(corrupt === 0 ? {} : { corruptPages: corrupt - 1 }),
    };
  }

  /** Numbers of the paths. */
  *ids(): Generator<number, void, undefined> {
    for (let id = 0, left = this.#count; left > 0; id += 1) {
      if (!this.hasId(id)) continue;
      left -= 1;
      yield id;
    }
  }

  /** Of the whole file; of a path that is there, as all below. */
  sizeOfId(id: number): number {
    const full = this.#fullSizes.get(this.#rowOfId(id));
    return full === 0 ? this.storedSizeOfId(id) : full - 1;
  }

  /** Of what the part has of it. */
  storedSizeOfId(id: number): number {
    return this.#contentsOf(id)?.sizeOf(this.#contentRowOf(id)) ?? 0;
  }

  /** Pages that were damaged when it was stored; undefined where nobody looked. */
  corruptPagesOfId(id: number): number | undefined {
    const corrupt = this.#corrupt.get(this.#rowOfId(id));
    return corrupt === 0 ? undefined : corrupt - 1;
  }

  /** Whether the backup has changes of the file only. */
  isIncrementId(id: number): boolean {
    return this.#fullSizes.get(this.#rowOfId(id)) !== 0;
  }

  partOfId(id: number): string {
    const row = this.#rowOfId(id);
    return row < 0 ? "" : (this.#partNames[this.#parts.get(row)] ?? "");
  }

  /** All parts that hold a file. */
  get partNames(): Iterable<string> {
    return this.#partNames;
  }

  /** Paths of the files in each part. */
  byPart(): ReadonlyMap<string, PathList> {
    const lists = new Map<string, PathList>();
    for (const id of this.ids()) {
      const part = this.partOfId(id);
      const list = lists.get(part) ?? new PathList(this.table);
      list.pushId(id);
      lists.set(part, list);
    }
    return lists;
  }

  /** False, and nothing is changed, if the path is there already. */
  set(path: string, file: ListedFile): boolean {
    const id = this.table.add(path);
    if (this.hasId(id)) return false;
    const row = this.#count;
    this.#count += 1;
    this.#rowOf.set(id, row + 1);
    if (this.#above?.isSame(id, file) !== true) {
      this.#contentOf.set(id, this.#contents.add(file) + 1);
    }
    this.#parts.set(row, this.#numberOf(file.part));
    this.#offsets.set(row, file.offsetBytes);
    if (file.fullBytes !== undefined) this.#fullSizes.set(row, file.fullBytes + 1);
    if (file.corruptPages !== undefined) this.#corrupt.set(row, file.corruptPages + 1);
    return true;
  }

  /** Whether a whole file is known to have the content that `unchanged` lists, by its number. */
  isSameContent(id: number, unchanged: UnchangedFiles): boolean {
    if (!this.hasId(id) || this.isIncrementId(id)) return false;
    const contents = unchanged.contentsOf(id);
    if (contents === undefined) return false;
    const row = unchanged.contentRowOf(id);
    return this.#contentsOf(id)?.isSameContent(this.#contentRowOf(id), contents, row) === true;
  }

  *keys(): Generator<string, void, undefined> {
    for (const id of this.ids()) yield this.table.pathOf(id);
  }

  *[Symbol.iterator](): Generator<readonly [path: string, file: ListedFile], void, undefined> {
    for (const id of this.ids()) {
      const file = this.getId(id);
      if (file !== undefined) yield [this.table.pathOf(id), file];
    }
  }

  #rowOfId(id: number): number {
    return id < 0 ? -1 : this.#rowOf.get(id) - 1;
  }

  #contentsOf(id: number): Contents | undefined {
    return this.#contentOf.get(id) > 0 ? this.#contents : this.#above?.contentsOf(id);
  }

  #contentRowOf(id: number): number {
    const own = this.#contentOf.get(id) - 1;
    return own >= 0 ? own : (this.#above?.contentRowOf(id) ?? -1);
  }

  #numberOf(part: string): number {
    const known = this.#partNumbers.get(part);
    if (known !== undefined) return known;
    const number = this.#partNames.push(part) - 1;
    this.#partNumbers.set(part, number);
    return number;
  }
}

/**
 * The files of an increment that are as they were in its base, by path: about 26 bytes each, or a
 * bit where the increment on top of it says the same.
 */
export class UnchangedFiles implements ByPath<ListedUnchanged> {
  readonly #table: PathTable;
  readonly #above: UnchangedFiles | undefined;
  /** Number of the row and 1, by the path's number, of those that are not in `#same`. */
  readonly #rowOf = new SparseColumn();
  readonly #contents: Contents;
  /** Those of which `#above` tells the same. */
  readonly #same: PathSet;

  /** `above` is that of the increment on top: of the same table, with hashes of the same kind. */
  constructor(table: PathTable, hash: ManifestHash, above?: UnchangedFiles) {
    this.#table = table;
    this.#above = above;
    this.#contents = new Contents(hash);
    this.#same = new PathSet(table);
  }

  get size(): number {
    return this.#contents.count + this.#same.size;
  }

  has(path: string): boolean {
    return this.hasId(this.#table.find(path));
  }

  get(path: string): ListedUnchanged | undefined {
    return this.getId(this.#table.find(path));
  }

  /** By the number that the table gives, as all below; -1 is never there. */
  hasId(id: number): boolean {
    return id >= 0 && (this.#same.hasId(id) || this.#rowOf.get(id) > 0);
  }

  getId(id: number): ListedUnchanged | undefined {
    const contents = this.contentsOf(id);
    if (contents === undefined) return undefined;
    this.#table.noteMade();
    return contents.read(this.contentRowOf(id));
  }

  /** Numbers of the paths. */
  *ids(): Generator<number, void, undefined> {
    for (let id = 0, left = this.#contents.count; left > 0; id += 1) {
      if (this.#rowOf.get(id) === 0) continue;
      left -= 1;
      yield id;
    }
    yield* this.#same.ids();
  }

  /** Of a path that is there. */
  sizeOfId(id: number): number {
    return this.contentsOf(id)?.sizeOf(this.contentRowOf(id)) ?? 0;
  }

  /** Permission bits. */
  modeOfId(id: number): number | undefined {
    return this.contentsOf(id)?.modeOf(this.contentRowOf(id));
  }

  /** False, and nothing is changed, if the path is there already. */
  set(path: string, file: ListedUnchanged): boolean {
    const id = this.#table.add(path);
    if (this.hasId(id)) return false;
    if (this.#above?.isSame(id, file) === true) this.#same.addId(id);
    else this.#rowOf.set(id, this.#contents.add(file) + 1);
    return true;
  }

  /** Whether all that a line says of a file is what is said of it here. */
  isSame(id: number, file: ListedUnchanged): boolean {
    return this.contentsOf(id)?.isSame(this.contentRowOf(id), file) === true;
  }

  /** Where the file's line stands: those of this increment, or of one on top. */
  contentsOf(id: number): Contents | undefined {
    if (id < 0) return undefined;
    if (this.#same.hasId(id)) return this.#above?.contentsOf(id);
    return this.#rowOf.get(id) > 0 ? this.#contents : undefined;
  }

  /** Which of them it is. */
  contentRowOf(id: number): number {
    return this.#same.hasId(id) ? (this.#above?.contentRowOf(id) ?? -1) : this.#rowOf.get(id) - 1;
  }

  *keys(): Generator<string, void, undefined> {
    for (const id of this.ids()) yield this.#table.pathOf(id);
  }

  *[Symbol.iterator](): Generator<readonly [path: string, file: ListedUnchanged], void, undefined> {
    for (const id of this.ids()) {
      const file = this.getId(id);
      if (file !== undefined) yield [this.#table.pathOf(id), file];
    }
  }
}
