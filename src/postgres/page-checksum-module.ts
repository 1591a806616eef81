import { CHECKSUM_BASE_OFFSETS, FNV_PRIME } from "./data-page.ts";

/**
 * Pages that one call computes; they lie at the start of the module's memory. Few: the copies of
 * more would drive the originals out of the processor's cache before they are hashed.
 */
export const MODULE_PAGES = 8;

const WASM_PAGE_BYTES = 65_536;
const I32 = 0x7f;
const V128 = 0x7b;
const VECTORS = 8;
const VECTOR_BYTES = 16;
const ROW_BYTES = VECTORS * VECTOR_BYTES;

/** Parameters and locals of the function, by index. */
const [PTR, COUNT, BLOCK, OUT, AT, END] = [0, 1, 2, 3, 4, 5] as const;
const SUMS = 6;
const MIXED = SUMS + VECTORS;
const PRIME = MIXED + 1;

/** Opcodes. @source WebAssembly Core Specification 2.0, 5.4 "Instructions" */
const op = {
  loop: [0x03, 0x40],
  end: [0x0b],
  branchIf: (depth: number) => [0x0d, depth],
  get: (index: number) => [0x20, index],
  set: (index: number) => [0x21, index],
  tee: (index: number) => [0x22, index],
  i32: (value: number) => [0x41, ...signed(value)],
  add: [0x6a],
  subtract: [0x6b],
  lessUnsigned: [0x49],
  remainderUnsigned: [0x70],
  xor: [0x73],
  store16: [0x3b, 0x01, 0x00],
  vectorLoad: (offset: number) => [0xfd, 0x00, 0x00, ...unsigned(offset)],
  vector: (words: readonly number[]) => [0xfd, 0x0c, ...words.flatMap(littleEndian)],
  vectorAnd: [0xfd, 0x4e],
  vectorXor: [0xfd, 0x51],
  vectorShift: [0xfd, 0xad, 0x01],
  vectorMultiply: [0xfd, 0xb5, 0x01],
  lane: (index: number) => [0xfd, 0x1b, index],
} as const;

/**
 * A WebAssembly module with `memory` and `checksums(ptr, count, block, out)`: for each of `count`
 * pages of `pageBytes` at `ptr`, the first of which is block `block`, a u16 at `out`. The 32 lanes
 * of PostgreSQL's checksum are 8 vectors of 4, which is several times as fast as JavaScript.
 *
 * @source pg_checksum_page, src/include/storage/checksum_impl.h
 */
export function checksumModule(pageBytes: number): Uint8Array<ArrayBuffer> {
  const memoryPages = Math.ceil((MODULE_PAGES * (pageBytes + 2)) / WASM_PAGE_BYTES);
  const bytes = code(
    [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    section(1, list([[0x60, ...list([[I32], [I32], [I32], [I32]]), 0x00]])),
    section(3, list([[0x00]])),
    section(5, list([[0x00, ...unsigned(memoryPages)]])),
    section(7, list([exported("memory", 0x02), exported("checksums", 0x00)])),
    section(10, list([sized(body(pageBytes))])),
  );
  return Uint8Array.from(bytes);
}

function body(pageBytes: number): number[] {
  const locals = [
    [0x02, I32],
    [VECTORS + 2, V128],
  ];
  return code(
    list(locals),
    op.vector([FNV_PRIME, FNV_PRIME, FNV_PRIME, FNV_PRIME]),
    op.set(PRIME),
    op.loop,
    page(pageBytes),
    increased(PTR, pageBytes),
    op.set(PTR),
    increased(OUT, 2),
    op.set(OUT),
    increased(BLOCK, 1),
    op.set(BLOCK),
    op.get(COUNT),
    op.i32(1),
    op.subtract,
    op.tee(COUNT),
    op.branchIf(0),
    op.end,
    op.end,
  );
}

function page(pageBytes: number): number[] {
  const value = (index: number) => code(op.get(AT), op.vectorLoad(index * VECTOR_BYTES));
  // pd_checksum, the lower half of the third word, counts as zero.
  const first = code(value(0), op.vector([-1, -1, 0xffff_0000, -1]), op.vectorAnd);
  return code(
    each((index) => code(op.vector(offsetsOf(index)), op.set(SUMS + index))),
    increased(PTR, pageBytes),
    op.set(END),
    op.get(PTR),
    op.set(AT),
    each((index) => mix(index, index === 0 ? first : value(index))),
    increased(AT, ROW_BYTES),
    op.set(AT),
    op.loop,
    each((index) => mix(index, value(index))),
    increased(AT, ROW_BYTES),
    op.tee(AT),
    op.get(END),
    op.lessUnsigned,
    op.branchIf(0),
    op.end,
    each((index) => mix(index)),
    each((index) => mix(index)),
    store(),
  );
}

function offsetsOf(index: number): readonly number[] {
  return CHECKSUM_BASE_OFFSETS.slice(index * 4, index * 4 + 4);
}

/** Folds the lanes and the block number into 1 to 65535, and stores that. */
function store(): number[] {
  const folded = each((index) => code(op.get(SUMS + index), index === 0 ? [] : op.vectorXor));
  const lane = (index: number) => code(op.get(MIXED), op.lane(index), index === 0 ? [] : op.xor);
  return code(
    folded,
    op.set(MIXED),
    op.get(OUT),
    lane(0),
    lane(1),
    lane(2),
    lane(3),
    op.get(BLOCK),
    op.xor,
    op.i32(65_535),
    op.remainderUnsigned,
    op.i32(1),
    op.add,
    op.store16,
  );
}

/** CHECKSUM_COMP: sum = (sum ^ value) * prime ^ (sum ^ value) >> 17; without value it is 0. */
function mix(index: number, value?: readonly number[]): number[] {
  const sum = SUMS + index;
  return code(
    op.get(sum),
    value === undefined ? [] : code(value, op.vectorXor),
    op.tee(MIXED),
    op.get(PRIME),
    op.vectorMultiply,
    op.get(MIXED),
    op.i32(17),
    op.vectorShift,
    op.vectorXor,
    op.set(sum),
  );
}

function increased(local: number, by: number): number[] {
  return code(op.get(local), op.i32(by), op.add);
}

function each(of: (index: number) => readonly number[]): number[] {
  return Array.from({ length: VECTORS }, (_, index) => of(index)).flat();
}

function code(...parts: readonly (readonly number[])[]): number[] {
  return parts.flat();
}

function section(id: number, content: readonly number[]): number[] {
  return [id, ...sized(content)];
}

function sized(content: readonly number[]): number[] {
  return [...unsigned(content.length), ...content];
}

function list(items: readonly (readonly number[])[]): number[] {
  return [...unsigned(items.length), ...items.flat()];
}

function exported(name: string, kind: number): number[] {
  return [...sized([...Buffer.from(name)]), kind, 0x00];
}

function littleEndian(word: number): number[] {
  return [word & 255, (word >>> 8) & 255, (word >>> 16) & 255, word >>> 24];
}

/** LEB128. @source WebAssembly Core Specification 2.0, 5.2.2 "Integers" */
function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 127) {
    bytes.push((rest & 127) | 128);
    rest >>>= 7;
  }
  return [...bytes, rest];
}

/** The same for a number that is not negative, with room for its sign. */
function signed(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 63) {
    bytes.push((rest & 127) | 128);
    rest >>>= 7;
  }
  return [...bytes, rest];
}
