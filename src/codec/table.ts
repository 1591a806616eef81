import { ConfigError } from "../errors.ts";
import type { Codec, CompressionMethod } from "./codec.ts";

/** What is known of a codec without its code, which `load` brings when bytes are to be moved. */
interface CodecEntry extends Omit<Codec, "compress" | "decompress"> {
  readonly load: () => Promise<Pick<Codec, "compress" | "decompress">>;
}

const ENTRIES: Readonly<Record<CompressionMethod, CodecEntry>> = {
  zstd: {
    method: "zstd",
    extension: "zst",
    hasContentChecksum: true,
    load: () => import("./zstd.ts"),
  },
  lz4: {
    method: "lz4",
    extension: "lz4",
    hasContentChecksum: true,
    load: () => import("./lz4.ts"),
  },
  brotli: {
    method: "brotli",
    extension: "br",
    hasContentChecksum: false,
    load: () => import("./brotli.ts"),
  },
  lzma: {
    method: "lzma",
    extension: "lzma",
    hasContentChecksum: false,
    load: () => import("./lzma.ts"),
  },
  gzip: {
    method: "gzip",
    extension: "gz",
    hasContentChecksum: true,
    load: () => import("./gzip.ts"),
  },
  none: {
    method: "none",
    extension: "",
    hasContentChecksum: false,
    load: () => import("./none.ts"),
  },
};

/** Extensions that can be read, without dot: ours first, "" for objects that are not compressed. */
export const KNOWN_EXTENSIONS: readonly string[] = Object.values(ENTRIES).map(
  ({ extension }) => extension,
);

/** The codec of a method. Its code is loaded by the first bytes that it moves. */
export function codecOf(method: CompressionMethod): Codec {
  const { load, ...entry } = ENTRIES[method];
  return {
    ...entry,
    async *compress(input, options) {
      yield* (await load()).compress(input, options);
    },
    async *decompress(input, options) {
      yield* (await load()).decompress(input, options);
    },
  };
}

/** The codec of an extension without dot, "" for none; undefined for one that we can't read. */
export function codecByExtension(extension: string): Codec | undefined {
  const entry = Object.values(ENTRIES).find((candidate) => candidate.extension === extension);
  return entry === undefined ? undefined : codecOf(entry.method);
}

/**
 * The codec for content of which nothing else says where it should end: itself if it has a checksum
 * of the content, else lz4, which every reader of these repositories has.
 */
export function vouchingCodec(codec: Codec): Codec {
  return codec.hasContentChecksum ? codec : codecOf("lz4");
}

/** The same choice with the vouching codec. Levels are numbers of one method: another has its own. */
export function vouching<T extends { readonly codec: Codec; readonly level?: number | undefined }>(
  choice: T,
): T {
  const codec = vouchingCodec(choice.codec);
  return codec === choice.codec ? choice : { ...choice, codec, level: undefined };
}

interface LevelRange {
  readonly min: number;
  readonly max: number;
  /** WAL-G's names, in lower case. */
  readonly names: Readonly<Record<string, number>>;
}

const LEVELS: Readonly<Partial<Record<CompressionMethod, LevelRange>>> = {
  zstd: { min: 1, max: 22, names: { fastest: 1, default: 3, better: 7, best: 11 } },
  brotli: { min: 0, max: 11, names: {} },
  lzma: { min: 0, max: 9, names: {} },
};

/**
 * Reads a level as the user writes it: a number, for zstd also fastest, default, better and best in
 * any case. Throws ConfigError for what the method does not have.
 */
export function parseCompressionLevel(method: CompressionMethod, text: string): number {
  const range = LEVELS[method];
  if (range === undefined) {
    throw new ConfigError(`compression level ${text} is set, but ${method} has no levels`, {
      hint: "Leave the level out, or choose the compression method zstd.",
    });
  }
  const named = Object.entries(range.names).find(([name]) => name === text.toLowerCase());
  if (named !== undefined) return named[1];
  const level = Number(text);
  if (/^\d+$/.test(text) && level >= range.min && level <= range.max) return level;
  const names = Object.keys(range.names).map((name) => `${name}, `);
  const more = method === "zstd" ? "; WALNUT_ZSTD_LEVEL takes auto, too" : "";
  throw new ConfigError(`compression level ${text} is unknown for ${method}`, {
    hint: `It has ${names.join("")}${range.min} to ${range.max}${more}.`,
  });
}
