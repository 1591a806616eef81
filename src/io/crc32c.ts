import { readFileSync } from "node:fs";
import { arch } from "node:os";
import { type ByteCode, loadByteCode } from "./runtime.ts";

/** The processor's own instruction, many times as fast as JavaScript. */
export interface NativeCrc32c {
  /** Shorter pieces are cheaper without a call. */
  readonly bytesMin: number;
  /**
   * The CRC-32C of some bytes and of bytes [from, to) of `view` behind them, where `sum` is that of
   * the first, 0 if there are none.
   */
  readonly update: ByteCode;
}

/** One running CRC-32C. */
export interface Crc32cSum {
  update(bytes: Uint8Array): void;
  /** The checksum of all bytes until now, big-endian in base64, as object stores write it. */
  base64(): string;
}

/**
 * By 50 bytes of machine code where that can be had, else by an addon. Undefined where neither can
 * be: the executable unpacks the addon into $TMPDIR or /tmp, which may be full, read-only or mounted
 * noexec.
 */
export async function loadNativeCrc32c(): Promise<NativeCrc32c | undefined> {
  return (await loadCodedCrc32c()) ?? (await loadAddonCrc32c());
}

/** (rdi: address, rsi: length, edx: sum) -> eax. */
const CODE_X64 = [
  [0x89, 0xd0], //                          mov eax, edx
  [0xf7, 0xd0], //                          not eax
  [0x48, 0x83, 0xee, 0x08], //              sub rsi, 8
  [0x72, 0x10], //                          jb rest
  [0xf2, 0x48, 0x0f, 0x38, 0xf1, 0x07], // word: crc32 rax, qword [rdi]
  [0x48, 0x83, 0xc7, 0x08], //              add rdi, 8
  [0x48, 0x83, 0xee, 0x08], //              sub rsi, 8
  [0x73, 0xf0], //                          jae word
  [0x48, 0x83, 0xc6, 0x08], //        rest: add rsi, 8
  [0x74, 0x0d], //                          je end
  [0xf2, 0x0f, 0x38, 0xf0, 0x07], //  byte: crc32 eax, byte [rdi]
  [0x48, 0xff, 0xc7], //                    inc rdi
  [0x48, 0xff, 0xce], //                    dec rsi
  [0x75, 0xf3], //                          jne byte
  [0xf7, 0xd0], //                     end: not eax
  [0xc3], //                                ret
];
/** A call costs as much as so many bytes in TypeScript. */
const CODE_BYTES_MIN = 64;

/** As a loaded module is: there is one, it never changes, and another one would cost as much again. */
const loaded: { coded?: Promise<NativeCrc32c | undefined> } = {};

async function loadCodedCrc32c(): Promise<NativeCrc32c | undefined> {
  return await (loaded.coded ??= makeCodedCrc32c());
}

/** On x86-64 only; arm64 has the addon. */
async function makeCodedCrc32c(): Promise<NativeCrc32c | undefined> {
  if (arch() !== "x64" || !hasInstruction()) return undefined;
  const update = await loadByteCode(Uint8Array.from(CODE_X64.flat()));
  if (update === undefined) return undefined;
  const check = Buffer.from("123456789");
  const view = new DataView(check.buffer, check.byteOffset, check.length);
  return update(view, 0, check.length, 0) === CHECK_SUM
    ? { bytesMin: CODE_BYTES_MIN, update }
    : undefined;
}

/** Of "123456789". */
const CHECK_SUM = 0xe306_9283;

function hasInstruction(): boolean {
  try {
    return /^flags\s*:.*\bsse4_2\b/m.test(readFileSync("/proc/cpuinfo", "utf8"));
  } catch {
    return false;
  }
}

const ADDON_BYTES_MIN = 512;

/** The addon alone: ten times as fast as JavaScript for long pieces. */
export async function loadAddonCrc32c(): Promise<NativeCrc32c | undefined> {
  try {
    const module: unknown = await import("@node-rs/crc32");
    // In the executable the addon itself stands here instead of the package that chooses one.
    for (const candidate of [module, Reflect.get(Object(module), "default")]) {
      if (!isAddon(candidate)) continue;
      const { crc32c } = candidate;
      const update: ByteCode = (view, from, to, sum) =>
        crc32c(new Uint8Array(view.buffer, view.byteOffset + from, to - from), sum);
      return { bytesMin: ADDON_BYTES_MIN, update };
    }
    return undefined;
  } catch {
    return undefined;
  }
}

/** Makes a running sum. */
export async function createCrc32c(): Promise<Crc32cSum> {
  const native = await loadNativeCrc32c();
  if (native === undefined) return await (await import("./crc32c-wasm.ts")).createWasmCrc32c();
  let sum = 0;
  return {
    update(bytes) {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      sum = native.update(view, 0, bytes.length, sum);
    },
    base64() {
      const digest = Buffer.alloc(4);
      digest.writeUInt32BE(sum);
      return digest.toString("base64");
    },
  };
}

function isAddon(
  value: unknown,
): value is { readonly crc32c: (bytes: Uint8Array, sum: number) => number } {
  return (
    typeof value === "object" &&
    value !== null &&
    "crc32c" in value &&
    typeof value.crc32c === "function"
  );
}
