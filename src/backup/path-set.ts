import type { PathTable } from "./path-table.ts";
import { Column, SparseColumn } from "./typed-column.ts";

/** Paths to look things up in; a Set of strings is one, too. */
export interface Paths extends Iterable<string> {
  readonly size: number;
  has(path: string): boolean;
}

/** Something for each of some paths; a Map is one, too. */
export interface ByPath<T> extends Iterable<readonly [path: string, value: T]> {
  readonly size: number;
  has(path: string): boolean;
  get(path: string): T | undefined;
  keys(): Iterable<string>;
}

const BITS = 8;

/** Some of the paths of a table, in a bit each. Gives them in the order of their numbers. */
export class PathSet implements Paths {
  readonly #table: PathTable;
  readonly #bits = new Column(Uint8Array);
  #size = 0;

  constructor(table: PathTable, paths: Iterable<string> = []) {
    this.#table = table;
    this.addAll(paths);
  }

  /** What numbers the paths. */
  get table(): PathTable {
    return this.#table;
  }

  get size(): number {
    return this.#size;
  }

  has(path: string): boolean {
    return this.hasId(this.#table.find(path));
  }

  /** By the number that the table gives; -1 is never in it. */
  hasId(id: number): boolean {
    return id >= 0 && (this.#bits.get(Math.floor(id / BITS)) & (1 << (id % BITS))) !== 0;
  }

  add(path: string): void {
    this.addId(this.#table.add(path));
  }

  addId(id: number): void {
    if (this.hasId(id)) return;
    const at = Math.floor(id / BITS);
    this.#bits.set(at, this.#bits.get(at) | (1 << (id % BITS)));
    this.#size += 1;
  }

  addAll(paths: Iterable<string>): void {
    if (paths instanceof PathSet && paths.#table === this.#table) {
      for (const id of paths.ids()) this.addId(id);
    } else {
      for (const path of paths) this.add(path);
    }
  }

  delete(path: string): void {
    const id = this.#table.find(path);
    if (!this.hasId(id)) return;
    const at = Math.floor(id / BITS);
    this.#bits.set(at, this.#bits.get(at) & ~(1 << (id % BITS)));
    this.#size -= 1;
  }

  *ids(): Generator<number, void, undefined> {
    for (let left = this.#size, at = 0; left > 0; at += 1) {
      const bits = this.#bits.get(at);
      for (let bit = 0; bits >>> bit > 0; bit += 1) {
        if ((bits & (1 << bit)) === 0) continue;
        left -= 1;
        yield at * BITS + bit;
      }
    }
  }

  *[Symbol.iterator](): Generator<string, void, undefined> {
    for (const id of this.ids()) yield this.#table.pathOf(id);
  }
}

/** Paths of a table in the order in which they came, 4 bytes each. */
export class PathList implements Iterable<string> {
  readonly #table: PathTable;
  readonly #ids = new Column(Uint32Array);
  #length = 0;

  constructor(table: PathTable) {
    this.#table = table;
  }

  get length(): number {
    return this.#length;
  }

  push(path: string): void {
    this.pushId(this.#table.add(path));
  }

  /** By the number that the table gives. */
  pushId(id: number): void {
    this.#ids.set(this.#length, id);
    this.#length += 1;
  }

  /** Numbers of the paths in their order. */
  sortedIds(): Uint32Array {
    const ids = new Uint32Array(this.#length);
    for (let index = 0; index < ids.length; index += 1) ids[index] = this.#ids.get(index);
    ids.sort();
    return ids;
  }

  *[Symbol.iterator](): Generator<string, void, undefined> {
    for (let index = 0; index < this.#length; index += 1) {
      yield this.#table.pathOf(this.#ids.get(index));
    }
  }
}

/**
 * One of a few values for each of some paths, in 4 bytes or so each: what is equal is held once.
 * Gives the paths in the order of their numbers.
 */
export class PathValues<T> implements ByPath<T> {
  readonly #table: PathTable;
  /** Number of the value and 1, by the path's number. */
  readonly #chosen = new SparseColumn();
  readonly #numbers = new Map<T, number>();
  readonly #values: T[] = [];
  #size = 0;

  constructor(table: PathTable) {
    this.#table = table;
  }

  get size(): number {
    return this.#size;
  }

  has(path: string): boolean {
    return this.get(path) !== undefined;
  }

  get(path: string): T | undefined {
    return this.getId(this.#table.find(path));
  }

  /** By the number that the table gives; -1 has none. */
  getId(id: number): T | undefined {
    return id < 0 ? undefined : this.#values[this.#chosen.get(id) - 1];
  }

  /** All values that a path has had. */
  get values(): readonly T[] {
    return this.#values;
  }

  set(path: string, value: T): void {
    this.setId(this.#table.add(path), value);
  }

  setId(id: number, value: T): void {
    if (this.#chosen.get(id) === 0) this.#size += 1;
    let number = this.#numbers.get(value);
    if (number === undefined) {
      number = this.#values.push(value);
      this.#numbers.set(value, number);
    }
    this.#chosen.set(id, number);
  }

  *keys(): Generator<string, void, undefined> {
    for (const [path] of this) yield path;
  }

  *[Symbol.iterator](): Generator<readonly [path: string, value: T], void, undefined> {
    for (let id = 0, left = this.#size; left > 0; id += 1) {
      const value = this.#values[this.#chosen.get(id) - 1];
      if (value === undefined) continue;
      left -= 1;
      yield [this.#table.pathOf(id), value];
    }
  }
}
