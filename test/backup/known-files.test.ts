import assert from "node:assert/strict";
import { test } from "node:test";
import { type BaseFile, BaseFiles } from "../../src/backup/known-files.ts";

const COUNT = 20_000;

for (const hash of ["xxh64", "sha256"] as const) {
  test(`finds what was put in, and nothing else: ${hash}`, async () => {
    const digits = hash === "xxh64" ? 16 : 64;
    const files = await BaseFiles.create(hash);
    const fileOf = (index: number): BaseFile => {
      const sizeBytes = index * 1_000_003;
      const text = index.toString(16).padStart(digits, "0");
      return index % 3 === 0 ? { sizeBytes } : { sizeBytes, hash: text };
    };
    for (let index = 0; index < COUNT; index += 1) files.add(`/base/5/${index}`, fileOf(index));
    for (let index = 0; index < COUNT; index += 1) {
      assert.deepEqual(files.find(`/base/5/${index}`), fileOf(index));
      assert.equal(files.find(`/base/6/${index}`), undefined);
    }
  });
}

test("sizes on both sides of 4 GiB come back", async () => {
  const files = await BaseFiles.create("xxh64");
  const sizes = [0, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 8192, 2 ** 40 + 1, Number.MAX_SAFE_INTEGER];
  for (const sizeBytes of sizes) files.add(`/${sizeBytes}`, { sizeBytes });
  for (const sizeBytes of sizes) assert.deepEqual(files.find(`/${sizeBytes}`), { sizeBytes });
  assert.deepEqual([files.knows("/0"), files.knows("/1")], [true, false]);
});

test("a name that is there twice is not found: nothing is certain of it", async () => {
  const files = await BaseFiles.create("xxh64");
  files.add("/a", { sizeBytes: 1 });
  files.add("/b", { sizeBytes: 1 });
  files.add("/a", { sizeBytes: 2 });
  assert.equal(files.find("/a"), undefined);
  assert.deepEqual(files.find("/b"), { sizeBytes: 1 });
});

test("reads the lines of a manifest: whole files, increments, unchanged ones", async () => {
  const files = await BaseFiles.create("xxh64");
  const file = { kind: "file", mode: 0o600, mtimeNs: 0n, part: "p", offsetBytes: 0 } as const;
  const [one, two] = ["0".repeat(15) + "1", "f".repeat(16)];
  files.addLine({ ...file, name: "/whole", sizeBytes: 7, hash: one });
  files.addLine({ ...file, name: "/pages", sizeBytes: 7, hash: one, fullBytes: 8192 });
  const same = { kind: "unchanged", mode: 0o600, mtimeNs: 0n, sizeBytes: 9 } as const;
  files.addLine({ ...same, name: "/same", hash: two });
  files.addLine({ ...same, name: "/same pages" });
  files.addLine({ kind: "directory", name: "/directory", mode: 0o700 });
  assert.deepEqual(
    ["/whole", "/pages", "/same", "/same pages", "/directory"].map((name) => files.find(name)),
    [
      { sizeBytes: 7, hash: one },
      { sizeBytes: 8192 },
      { sizeBytes: 9, hash: two },
      { sizeBytes: 9 },
      undefined,
    ],
  );
});
