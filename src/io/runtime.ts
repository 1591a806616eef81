/**
 * Everything that differs between Bun, which we ship, and Node.js, which we can fall back to.
 * No other module may ask which of the two it runs on.
 */
import { FormatError, systemErrorCode } from "../errors.ts";
import { nodeCrypto, util, zlib } from "./builtin.ts";
import { free } from "./freed.ts";

/** What we use of Bun's own API. */
interface BunApi {
  zstdCompress(bytes: Uint8Array, options: { readonly level: number }): Promise<Uint8Array>;
  zstdDecompress(bytes: Uint8Array): Promise<Uint8Array>;
  readonly hash: { xxHash64(bytes: Uint8Array): bigint };
  gc(isSynchronous: boolean): void;
  readonly CryptoHasher: new (algorithm: "sha256") => {
    update(text: string): void;
    digest(encoding: "hex"): string;
  };
}

/** SHA-256 of a short text in UTF-8, as lower-case hex, without loading `node:crypto`. */
export function sha256Hex(text: string): string {
  const bun = bunApi();
  if (bun === undefined) return nodeCrypto().createHash("sha256").update(text).digest("hex");
  const hasher = new bun.CryptoHasher("sha256");
  hasher.update(text);
  return hasher.digest("hex");
}

const ZSTD_CHECKSUM_FLAG = 0x04;
const ZSTD_CHECKSUM_BYTES = 4;
/** Of the frame header descriptor, behind the magic number. */
const ZSTD_DESCRIPTOR_OFFSET = 4;

/**
 * Compresses `bytes` into one zstd frame with content size and content checksum, off the main
 * thread. `bytes` must not change until it is done.
 */
export async function zstdCompressFrame(bytes: Uint8Array, level: number): Promise<Uint8Array> {
  const bun = bunApi();
  if (bun !== undefined) {
    const hash = bun.hash.xxHash64(bytes);
    return withZstdChecksum(await bun.zstdCompress(bytes, { level }), hash);
  }
  const { constants, zstdCompress } = zlib();
  return await util().promisify(zstdCompress)(bytes, {
    // Without it the frame would not tell its content size.
    pledgedSrcSize: bytes.length,
    params: {
      [constants.ZSTD_c_compressionLevel]: level,
      [constants.ZSTD_c_checksumFlag]: 1,
    },
  });
}

/**
 * Decompresses one whole frame off the main thread and verifies its checksum if it has one.
 * `frame` must end where the frame ends and declare `contentBytes`, which the caller has limited;
 * it must not change until it is done. Throws FormatError if the frame is damaged.
 */
export async function zstdDecompressFrame(
  frame: Uint8Array,
  contentBytes: number,
): Promise<Uint8Array> {
  const content = await decompressed(frame, contentBytes).catch((error: unknown) => {
    throw new FormatError("zstd frame is damaged", { cause: error });
  });
  if (content.length !== contentBytes) {
    throw new FormatError(
      `zstd frame is damaged: it declares ${contentBytes} bytes and holds ${content.length}`,
    );
  }
  return content;
}

function decompressed(frame: Uint8Array, contentBytes: number): Promise<Uint8Array> {
  const bun = bunApi();
  if (bun !== undefined) return bun.zstdDecompress(frame);
  const { constants, zstdDecompress } = zlib();
  const chunkSize = Math.max(contentBytes, constants.Z_MIN_CHUNK);
  return util().promisify(zstdDecompress)(frame, { chunkSize, maxOutputLength: chunkSize });
}

/** XXH64 with seed 0 of all of `bytes`, or undefined where the runtime has no native one. */
export function nativeXxh64(bytes: Uint8Array): bigint | undefined {
  return bunApi()?.hash.xxHash64(bytes);
}

/** Bun has no option for the checksum that the format provides for. */
function withZstdChecksum(frame: Uint8Array, contentHash: bigint): Uint8Array {
  const whole = Buffer.allocUnsafe(frame.length + ZSTD_CHECKSUM_BYTES);
  whole.set(frame);
  const descriptor = whole.readUInt8(ZSTD_DESCRIPTOR_OFFSET);
  whole.writeUInt8(descriptor | ZSTD_CHECKSUM_FLAG, ZSTD_DESCRIPTOR_OFFSET);
  whole.writeUInt32LE(Number(BigInt.asUintN(32, contentHash)), frame.length);
  free(frame);
  return whole;
}

/**
 * Collects garbage now, where the runtime lets us: it would wait until there is as much of it as of
 * what lives. Takes some 10 ms for each 100 MiB that live; for loops over millions of small things.
 */
export function collectGarbage(): void {
  bunApi()?.gc(true);
}

function bunApi(): BunApi | undefined {
  const candidate: unknown = Reflect.get(globalThis, "Bun");
  return isBunApi(candidate) ? candidate : undefined;
}

function isBunApi(value: unknown): value is BunApi {
  return typeof value === "object" && value !== null && "zstdCompress" in value && "hash" in value;
}

/** What became of a short exchange over a unix socket. */
export type UnixExchange =
  | { readonly kind: "answer"; readonly bytes: Uint8Array }
  /** Nobody took the connection; the system's code says why. */
  | { readonly kind: "absent"; readonly code: string }
  /** The connection ended without an answer. */
  | { readonly kind: "closed" };

interface BunSocket {
  write(bytes: Uint8Array): number;
  end(): void;
}

interface BunConnector {
  connect(options: {
    readonly unix: string;
    readonly socket: {
      open(socket: BunSocket): void;
      data(socket: BunSocket, bytes: Uint8Array): void;
      close(): void;
      error(socket: BunSocket, error: Error): void;
      connectError(socket: BunSocket, error: Error): void;
    };
  }): Promise<BunSocket>;
}

/**
 * Sends a request of a few hundred bytes at most and gives the first bytes that come back: fewer
 * than `answerBytes` only where the connection ends. Never rejects; an abort closes it. (Bun's own
 * sockets cost half a millisecond, those of node:net six.)
 */
export async function exchangeOverUnixSocket(
  path: string,
  request: Uint8Array,
  options: { readonly signal: AbortSignal; readonly answerBytes?: number },
): Promise<UnixExchange> {
  const { signal, answerBytes = 1 } = options;
  const { promise, resolve } = Promise.withResolvers<UnixExchange>();
  let answer = Buffer.alloc(0);
  const closed = (): void =>
    resolve(answer.length > 0 ? { kind: "answer", bytes: answer } : { kind: "closed" });
  /** Gives whether the answer is whole. */
  const take = (bytes: Uint8Array): boolean => {
    answer = Buffer.concat([answer, bytes]);
    if (answer.length < answerBytes) return false;
    closed();
    return true;
  };
  const absent = (error: unknown): void =>
    resolve({ kind: "absent", code: systemErrorCode(error) ?? String(error) });
  const bun: unknown = Reflect.get(globalThis, "Bun");
  if (isBunConnector(bun)) {
    const socket = {
      open(opened: BunSocket) {
        signal.addEventListener("abort", () => opened.end(), { once: true });
        opened.write(request);
      },
      data(opened: BunSocket, bytes: Uint8Array) {
        if (take(bytes)) opened.end();
      },
      close: closed,
      error: closed,
      connectError: (_: BunSocket, error: Error) => absent(error),
    };
    bun.connect({ unix: path, socket }).catch(absent);
    signal.addEventListener("abort", () => resolve({ kind: "closed" }), { once: true });
    return await promise;
  }
  const { createConnection } = await import("node:net");
  const socket = createConnection({ path });
  let isOpen = false;
  signal.addEventListener("abort", () => socket.destroy(), { once: true });
  socket.on("connect", () => {
    isOpen = true;
    socket.write(request);
  });
  socket.on("data", (bytes: Buffer) => {
    if (take(bytes)) socket.destroy();
  });
  socket.on("error", (error) => (isOpen ? closed() : absent(error)));
  socket.on("close", closed);
  return await promise;
}

function isBunConnector(value: unknown): value is BunConnector {
  return typeof value === "object" && value !== null && "connect" in value;
}

/**
 * Whether the other side of a socket that may be half open has gone for good: Bun tells by no event
 * before we write. False where that can't be known.
 */
export function isHungUp(socket: object): boolean {
  const handle: unknown = Reflect.get(socket, "_handle");
  if (typeof handle !== "object" || handle === null) return handle === null;
  return Reflect.get(handle, "fd") === -1;
}

/** What we call in the C library, which has what neither runtime offers. */
interface Libc {
  socket(domain: number, type: number, protocol: number): number;
  sendto(...args: readonly (number | bigint | Uint8Array)[]): number | bigint;
  close(descriptor: number): number;
  clock_gettime(clock: number, time: Uint8Array): number;
  mmap(...args: readonly number[]): number | bigint;
  mprotect(address: number, sizeBytes: number, protection: number): number;
}

/** @source socket.h, un.h, time.h of Linux, the same on x86-64 and arm64 */
const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC_NONBLOCK = 0o2004002;
const MSG_NOSIGNAL = 0x4000;
const SOCKET_ADDRESS_BYTES = 110;
const CLOCK_MONOTONIC = 1;
const LIBC_NAMES = ["libc.so.6", "libc.so", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"];

/** Gives undefined where the runtime can't call it. Costs a millisecond. */
async function loadLibc(): Promise<Libc | undefined> {
  return (await loadForeign())?.libc;
}

async function loadForeign(): Promise<{ ffi: ForeignInterface; libc: Libc } | undefined> {
  // Not a literal: bundlers for Node.js would look for it.
  const specifier = ["bun", "ffi"].join(":");
  try {
    const ffi: unknown = await import(specifier);
    if (!isForeignInterface(ffi)) return undefined;
    for (const name of LIBC_NAMES) {
      const { symbols } = tryOpen(ffi, name) ?? {};
      if (isLibc(symbols)) return { ffi, libc: symbols };
    }
  } catch {
    // Node.js.
  }
  return undefined;
}

interface ForeignInterface {
  dlopen(name: string, functions: object): { readonly symbols: unknown };
  readonly CFunction: new (definition: object) => unknown;
  ptr(view: ArrayBufferView): number;
  toArrayBuffer(address: number, offset: number, sizeBytes: number): ArrayBuffer;
}

function tryOpen(ffi: ForeignInterface, name: string): { readonly symbols: unknown } | undefined {
  try {
    return ffi.dlopen(name, {
      socket: { args: ["i32", "i32", "i32"], returns: "i32" },
      sendto: { args: ["i32", "ptr", "u64", "i32", "ptr", "u32"], returns: "i64" },
      close: { args: ["i32"], returns: "i32" },
      clock_gettime: { args: ["i32", "ptr"], returns: "i32" },
      mmap: { args: ["ptr", "u64", "i32", "i32", "i32", "i64"], returns: "i64" },
      mprotect: { args: ["ptr", "u64", "i32"], returns: "i32" },
    });
  } catch {
    return undefined;
  }
}

function isForeignInterface(value: unknown): value is ForeignInterface {
  return typeof value === "object" && value !== null && "dlopen" in value;
}

function isLibc(value: unknown): value is Libc {
  return typeof value === "object" && value !== null && "sendto" in value && "socket" in value;
}

/** Small things of the system for which there is no API. */
export interface SystemCalls {
  /**
   * Sends one datagram to a unix socket: a path, or "@" and an abstract name. Gives false when it
   * did not go out; never blocks.
   */
  sendDatagram(address: string, text: string): boolean;
  /** The system's own monotonic clock, in microseconds. */
  monotonicUs(): bigint;
}

/** Undefined where the runtime can't make them. */
export async function loadSystemCalls(): Promise<SystemCalls | undefined> {
  const libc = await loadLibc();
  if (libc === undefined) return undefined;
  return {
    sendDatagram(address, text) {
      const name = Buffer.from(address);
      const isAbstract = address.startsWith("@");
      if (name.length === 0 || name.length > SOCKET_ADDRESS_BYTES - 3) return false;
      const socketAddress = Buffer.alloc(SOCKET_ADDRESS_BYTES);
      socketAddress.writeUInt16LE(AF_UNIX, 0);
      socketAddress.set(name, 2);
      if (isAbstract) socketAddress.writeUInt8(0, 2);
      const addressBytes = 2 + name.length + (isAbstract ? 0 : 1);
      const descriptor = libc.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC_NONBLOCK, 0);
      if (descriptor < 0) return false;
      try {
        const bytes = Buffer.from(text);
        const words = [descriptor, bytes, bytes.length, MSG_NOSIGNAL, socketAddress, addressBytes];
        return Number(libc.sendto(...words)) === bytes.length;
      } finally {
        libc.close(descriptor);
      }
    },
    monotonicUs() {
      const time = Buffer.alloc(16);
      libc.clock_gettime(CLOCK_MONOTONIC, time);
      return time.readBigInt64LE(0) * 1_000_000n + time.readBigInt64LE(8) / 1000n;
    },
  };
}

/** Runs machine code over bytes [from, to) of a view, with one more 32-bit word, and gives another. */
export type ByteCode = (view: DataView, from: number, to: number, word: number) => number;

/** @source mman.h of Linux, the same on all machines but those that we don't run on */
const PROT_READ_WRITE = 0x3;
const PROT_READ_EXECUTE = 0x5;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const CODE_BYTES_MAX = 4096;

/**
 * Makes `code` callable: position-independent, of this machine, with C's calling convention and
 * the words (address, 64-bit length, 32-bit word); it must not write, nor read outside. Undefined
 * where the runtime or the system's policy does not let us. Costs two milliseconds, and the page of
 * it is kept until the process ends.
 */
export async function loadByteCode(code: Uint8Array): Promise<ByteCode | undefined> {
  const { ffi, libc } = (await loadForeign()) ?? {};
  if (ffi === undefined || libc === undefined || code.length > CODE_BYTES_MAX) return undefined;
  try {
    const address = placeCode(ffi, libc, code);
    return address === undefined ? undefined : callable(ffi, address);
  } catch {
    return undefined;
  }
}

/** Its memory is never writable and executable at the same time. */
function placeCode(ffi: ForeignInterface, libc: Libc, code: Uint8Array): number | undefined {
  const where = [0, CODE_BYTES_MAX, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0];
  const address = Number(libc.mmap(...where));
  if (address <= 0) return undefined;
  new Uint8Array(ffi.toArrayBuffer(address, 0, CODE_BYTES_MAX)).set(code);
  return libc.mprotect(address, CODE_BYTES_MAX, PROT_READ_EXECUTE) === 0 ? address : undefined;
}

function callable(ffi: ForeignInterface, address: number): ByteCode | undefined {
  const definition = { ptr: address, args: ["ptr", "u64", "u32"], returns: "u32" };
  const run: unknown = new ffi.CFunction(definition);
  if (!isCode(run)) return undefined;
  // The same view comes many times in a row, and to ask for its address costs as much as a call.
  let known: DataView | undefined;
  let base = 0;
  return (view, from, to, word) => {
    // Throws where the memory was given away meanwhile.
    if (!(from >= 0 && from <= to && to <= view.byteLength)) {
      throw new RangeError(`bytes ${from} to ${to} of ${view.byteLength}`);
    }
    if (from === to) return run(0, 0, word);
    if (known !== view) base = ffi.ptr(view);
    known = view;
    return run(base + from, to - from, word);
  };
}

function isCode(
  value: unknown,
): value is (address: number, length: number, word: number) => number {
  return typeof value === "function";
}
