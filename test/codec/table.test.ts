import { test } from "node:test";
import assert from "node:assert/strict";
import {
  KNOWN_EXTENSIONS,
  codecByExtension,
  codecOf,
  parseCompressionLevel,
} from "../../src/codec/table.ts";

const codecs = [
  { method: "zstd", extension: "zst", hasContentChecksum: true },
  { method: "lz4", extension: "lz4", hasContentChecksum: true },
  { method: "brotli", extension: "br", hasContentChecksum: false },
  { method: "lzma", extension: "lzma", hasContentChecksum: false },
  { method: "gzip", extension: "gz", hasContentChecksum: true },
  { method: "none", extension: "", hasContentChecksum: false },
] as const;

for (const { method, extension, hasContentChecksum } of codecs) {
  test(`${method} is found by its name and by ".${extension}"`, () => {
    for (const codec of [codecOf(method), codecByExtension(extension)]) {
      assert.equal(codec?.method, method);
      assert.equal(codec.extension, extension);
      assert.equal(codec.hasContentChecksum, hasContentChecksum);
    }
  });
}

test("an extension that we can't read has no codec", () => {
  for (const extension of ["lzo", "zstd", "ZST", ".zst", "tar", "toString"]) {
    assert.equal(codecByExtension(extension), undefined);
  }
  assert.deepEqual(KNOWN_EXTENSIONS, ["zst", "lz4", "br", "lzma", "gz", ""]);
});

const levels = [
  { method: "zstd", text: "fastest", level: 1 },
  { method: "zstd", text: "default", level: 3 },
  { method: "zstd", text: "Better", level: 7 },
  { method: "zstd", text: "BEST", level: 11 },
  { method: "zstd", text: "1", level: 1 },
  { method: "zstd", text: "22", level: 22 },
  { method: "brotli", text: "0", level: 0 },
  { method: "brotli", text: "11", level: 11 },
  { method: "lzma", text: "9", level: 9 },
] as const;

for (const { method, text, level } of levels) {
  test(`level ${text} of ${method} is ${level}`, () => {
    assert.equal(parseCompressionLevel(method, text), level);
  });
}

const zstdHint =
  "It has fastest, default, better, best, 1 to 22; WALNUT_ZSTD_LEVEL takes auto, too.";
const badLevels = [
  { method: "zstd", text: "0", hint: zstdHint },
  { method: "zstd", text: "23", hint: zstdHint },
  { method: "zstd", text: "-1", hint: zstdHint },
  { method: "zstd", text: "3.5", hint: zstdHint },
  { method: "zstd", text: "", hint: zstdHint },
  { method: "zstd", text: "fast", hint: zstdHint },
  { method: "zstd", text: "toString", hint: zstdHint },
  { method: "brotli", text: "best", hint: "It has 0 to 11." },
  { method: "lzma", text: "10", hint: "It has 0 to 9." },
] as const;

for (const { method, text, hint } of badLevels) {
  test(`level "${text}" of ${method} is refused`, () => {
    assert.throws(() => parseCompressionLevel(method, text), {
      name: "ConfigError",
      message: `compression level ${text} is unknown for ${method}`,
      hint,
    });
  });
}

for (const method of ["lz4", "none", "gzip"] as const) {
  test(`${method} has no levels`, () => {
    assert.throws(() => parseCompressionLevel(method, "1"), {
      name: "ConfigError",
      message: `compression level 1 is set, but ${method} has no levels`,
    });
  });
}
