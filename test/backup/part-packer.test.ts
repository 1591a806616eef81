import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  appendFileSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { fc } from "../support/property.ts";
import { DocumentsSpool } from "../../src/backup/documents-spool.ts";
import { FileJudge } from "../../src/backup/file-judge.ts";
import { PAGE_BYTES } from "../../src/backup/increment-header.ts";
import { PageVerifier } from "../../src/backup/page-verifier.ts";
import { PartPacker } from "../../src/backup/part-packer.ts";
import type { Walked, WalkedFile } from "../../src/backup/walk.ts";
import { bytesSource, readAll } from "../../src/io/bytes.ts";
import { createHasher } from "../../src/io/hash.ts";
import { type ManifestFile, parseManifest } from "../../src/layout/manifest.ts";
import { ChangedBlocks } from "../../src/postgres/changed-blocks.ts";
import { pageChecksum } from "../../src/postgres/data-page.ts";
import { lsn } from "../../src/postgres/lsn.ts";
import { PageChecksums } from "../../src/postgres/page-checksums.ts";
import { readTar } from "../../src/tar/read.ts";

const place = { root: "" };

beforeEach(() => {
  place.root = mkdtempSync(join(tmpdir(), "walnut-pack-"));
});
afterEach(() => rmSync(place.root, { recursive: true }));

const base = { mode: 0o600, mtimeNs: 1_700_000_000_500_000_000n, uid: 1, gid: 2 };

function file(name: string, content: Uint8Array): WalkedFile {
  const path = join(place.root, name);
  writeFileSync(path, content);
  return { kind: "file", name: `/${name}`, path, sizeBytes: content.length, ...base };
}

function bytes(length: number, seed = 1): Buffer {
  return Buffer.from(Array.from({ length }, (_, index) => (index * 31 + seed * 7) % 256));
}

interface Packed {
  readonly tar: Buffer;
  readonly contents: Map<string, Buffer>;
  readonly files: readonly ManifestFile[];
  /** With their hashes. */
  readonly unchanged: readonly (readonly [name: string, hash: string | undefined])[];
  readonly left: readonly Walked[];
}

interface PackChange {
  readonly thresholdBytes?: number;
  readonly onChunk?: (count: number) => void;
  readonly hash?: "xxh64" | "sha256";
  readonly verifier?: PageVerifier;
  readonly judge?: FileJudge;
}

/** Packs one part of the entries, and reads tar and manifest. */
async function pack(entries: readonly Walked[], change: PackChange = {}): Promise<Packed> {
  using documents = new DocumentsSpool({ directory: place.root, hasFilesMetadata: true });
  const hash = change.hash ?? "xxh64";
  const iterator = entries[Symbol.iterator]();
  const first = iterator.next().value;
  assert.ok(first !== undefined);
  const packer = new PartPacker({
    part: "part_001.tar",
    hasher: await createHasher(hash),
    documents,
    verifier: change.verifier,
    judge: change.judge,
    thresholdBytes: change.thresholdBytes ?? 2 ** 40,
    rateLimit: undefined,
    onContent: () => {},
    signal: AbortSignal.timeout(60_000),
  });
  const chunks: Buffer[] = [];
  for await (const chunk of packer.pack(first, iterator)) {
    assert.ok(chunk.length > 0);
    chunks.push(Buffer.from(chunk));
    change.onChunk?.(chunks.length);
  }
  const tar = Buffer.concat(chunks);
  assert.equal(packer.plainBytes, tar.length);

  const contents = new Map<string, Buffer>();
  for await (const entry of readTar(bytesSource(tar).open())) {
    contents.set(entry.name, await readAll(entry.content()));
  }
  const header = { backup: "base_000000010000000000000003", systemId: 1n, hash, startLsn: 1n };
  const lines = await Array.fromAsync(parseManifest(documents.manifest(header)));
  const files = lines.filter((line) => line.kind === "file");
  for (const { name, offsetBytes, sizeBytes } of files) {
    const stored = tar.subarray(offsetBytes, offsetBytes + sizeBytes);
    assert.deepEqual(stored, contents.get(name), `${name} at ${offsetBytes}`);
  }
  const unchanged = lines.flatMap((line) =>
    line.kind === "unchanged" ? [[line.name, line.hash] as const] : [],
  );
  return { tar, contents, files, unchanged, left: [...iterator] };
}

test("contents, positions and hashes agree, whatever the sizes", async () => {
  const size = fc.oneof(
    fc.integer({ min: 0, max: 2000 }),
    fc.constantFrom(0, 512, 65_535, 65_536, 65_537, 1_048_575, 1_048_576, 1_048_577, 3_000_000),
  );
  const hasher = await createHasher("xxh64");
  await fc.assert(
    fc.asyncProperty(fc.array(size, { minLength: 1, maxLength: 6 }), async (sizes) => {
      const contents = sizes.map((length, index) => bytes(length, index));
      const entries = contents.map((content, index) => file(`f${index}`, content));
      const packed = await pack(entries);
      assert.deepEqual([...packed.contents.values()], contents);
      assert.deepEqual(
        packed.files.map(({ hash }) => hash),
        contents.map((content) => hasher.digestOf(content)),
      );
    }),
    { numRuns: 40 },
  );
});

test("SHA-256 can take the place of XXH64", async () => {
  const content = bytes(100_000);
  const packed = await pack([file("a", content), file("b", bytes(5))], { hash: "sha256" });
  assert.equal(packed.files[0]?.hash, createHash("sha256").update(content).digest("hex"));
  assert.equal(packed.files[1]?.hash, createHash("sha256").update(bytes(5)).digest("hex"));
});

test("directories and links are entries without content", async () => {
  const directory = { kind: "directory" as const, name: "/base", ...base, mode: 0o700 };
  const link = { kind: "link" as const, name: "/conf", target: "/etc/conf", ...base };
  const packed = await pack([directory, link]);
  assert.deepEqual([...packed.contents.keys()], ["/base", "/conf"]);
  const [first] = await Array.fromAsync(readTar(bytesSource(packed.tar).open()));
  assert.equal(first?.modifiedAtSeconds, 1_700_000_001, "rounded to the next second");
});

for (const size of [8192, 3_000_000]) {
  test(`a file of ${size} bytes that shrank is filled up with zeros`, async () => {
    const content = bytes(size);
    const entry = file("1259", content);
    truncateSync(entry.path, 5000);
    const packed = await pack([entry, file("after", bytes(10))]);
    const expected = Buffer.concat([content.subarray(0, 5000), Buffer.alloc(size - 5000)]);
    assert.deepEqual(packed.contents.get("/1259"), expected);
    assert.deepEqual(packed.contents.get("/after"), bytes(10));
  });

  test(`a file of ${size} bytes that grew is cut`, async () => {
    const content = bytes(size);
    const entry = file("1259", content);
    appendFileSync(entry.path, bytes(9000));
    const packed = await pack([entry, file("after", bytes(10))]);
    assert.deepEqual(packed.contents.get("/1259"), content);
    assert.deepEqual(packed.contents.get("/after"), bytes(10));
  });

  test(`a file of ${size} bytes that vanished is passed over`, async () => {
    const entry = file("1259", bytes(size));
    unlinkSync(entry.path);
    const packed = await pack([entry, file("after", bytes(10))]);
    assert.deepEqual([...packed.contents.keys()], ["/after"]);
  });
}

test("damaged pages of a large file are told by their blocks", async () => {
  const content = Buffer.concat([bytes(300 * PAGE_BYTES), bytes(100)]);
  for (let block = 0; block < 300; block += 1) {
    const page = content.subarray(block * PAGE_BYTES, (block + 1) * PAGE_BYTES);
    page.writeBigUInt64LE(0n, 0);
    page.writeUInt16LE(pageChecksum(page, block), 8);
  }
  const wrong = [0, 15, 16, 126, 127, 128, 254, 299];
  for (const block of wrong) content.writeUInt8(99, block * PAGE_BYTES + 5000);
  const verifier = new PageVerifier({
    sums: await PageChecksums.create(),
    startLsn: lsn(1000n),
    clock: { now: () => 0, monotonicMs: () => 0, sleep: async () => {} },
    isEveryBlockListed: true,
  });
  const packed = await pack([{ ...file("16384", content), name: "/base/5/16384" }], { verifier });
  assert.deepEqual(packed.contents.get("/base/5/16384"), content);
  assert.deepEqual(verifier.finish(lsn(2000n)), [
    { name: "/base/5/16384", blocks: { count: wrong.length, blockNumbers: wrong } },
  ]);
  assert.equal(packed.files[0]?.corruptPages, wrong.length);
  assert.equal(packed.files[0]?.hash, (await createHasher("xxh64")).digestOf(content));
});

test("a file that is truncated while it is read is filled up with zeros", async () => {
  const content = bytes(5_000_000);
  const entry = file("1259", content);
  const packed = await pack([entry], {
    onChunk: (count) => {
      if (count === 2) truncateSync(entry.path, 0);
    },
  });
  const stored = packed.contents.get("/1259");
  assert.equal(stored?.length, content.length);
  const read = 2 * 1024 * 1024 - 512;
  assert.deepEqual(stored?.subarray(0, read), content.subarray(0, read));
  assert.deepEqual(stored?.subarray(read), Buffer.alloc(content.length - read));
});

test("a file that was dropped while it is read is read to its end", async () => {
  const content = bytes(3_000_000);
  const entry = file("1259", content);
  const packed = await pack([entry], { onChunk: () => rmSync(entry.path, { force: true }) });
  assert.deepEqual(packed.contents.get("/1259"), content);
});

test("a file that became a link is passed over", async () => {
  const entry = file("1259", bytes(10));
  unlinkSync(entry.path);
  symlinkSync("/etc/passwd", entry.path);
  const packed = await pack([entry, file("after", bytes(10))]);
  assert.deepEqual([...packed.contents.keys()], ["/after"]);
  assert.ok(lstatSync(entry.path).isSymbolicLink());
});

test("a part ends with the file by which it holds more than the threshold", async () => {
  const entries = [1000, 1000, 1, 500].map((size, index) => file(`f${index}`, bytes(size)));
  const packed = await pack(entries, { thresholdBytes: 2000 });
  assert.deepEqual([...packed.contents.keys()], ["/f0", "/f1", "/f2"]);
  assert.deepEqual(
    packed.left.map(({ name }) => name),
    ["/f3"],
  );
  const exact = await pack(entries, { thresholdBytes: 2001 });
  assert.deepEqual(exact.left, []);
});

test("a part of nothing but vanished files is an empty archive", async () => {
  const entry = file("1259", bytes(10));
  unlinkSync(entry.path);
  const packed = await pack([entry]);
  assert.deepEqual(packed.tar, Buffer.alloc(1024));
});

test("names that need an extended header are at the right position", async () => {
  const long = "n".repeat(200);
  const packed = await pack([file(long, bytes(700)), file("é", bytes(70_000))]);
  assert.deepEqual(packed.contents.get(`/${long}`), bytes(700));
  assert.deepEqual(packed.contents.get("/é"), bytes(70_000));
});

test("a file that can't be read ends the packing with its name", async () => {
  const entry: WalkedFile = { kind: "file", name: "/sub", path: place.root, sizeBytes: 9, ...base };
  await assert.rejects(pack([entry]), {
    name: "LocalFileError",
    message: `cannot read ${place.root}: it is a directory (EISDIR)`,
  });
});

/** A file with another name than the one on disk. */
function named(name: string, content: Uint8Array): WalkedFile {
  return { ...file(name.replaceAll("/", "_"), content), name };
}

test("of an increment only what must be read is opened", async () => {
  const hasher = await createHasher("xxh64");
  const pages = bytes(4 * PAGE_BYTES);
  const entries = [
    named("/base/5/16384", pages),
    named("/base/5/16385", pages),
    named("/base/5/16385_vm", bytes(PAGE_BYTES)),
    named("/base/5/16386_vm", bytes(PAGE_BYTES)),
    named("/base/5/16387_fsm", bytes(100_000)),
    named("/base/5/16388_fsm", bytes(PAGE_BYTES)),
    named("/base/5/16389", pages),
  ];
  const then = new Map(
    entries.slice(0, -1).map(({ name, path, sizeBytes }) => {
      return [name, { sizeBytes, hash: hasher.digestOf(readFileSync(path)) }] as const;
    }),
  );
  for (const { name, path } of entries) {
    // Of what is known by the change map, and of what has gone since it was seen.
    if (["/base/5/16384", "/base/5/16388_fsm"].includes(name)) unlinkSync(path);
    if (name === "/base/5/16386_vm") writeFileSync(path, bytes(PAGE_BYTES, 2));
  }
  const changes = new ChangedBlocks();
  const place = { tablespaceOid: 1663, databaseOid: 5, relfilenode: 16_385, fork: "main" } as const;
  changes.addBlock(place, 2);
  const judge = new FileJudge({
    files: { find: (name) => then.get(name) },
    startLsn: lsn(1n),
    sameDatabases: new Set([5]),
    changes,
  });
  const packed = await pack(entries, { judge });
  const hashOf = (name: string): string | undefined => then.get(name)?.hash;
  assert.deepEqual(
    packed.unchanged,
    ["/base/5/16384", "/base/5/16385_vm", "/base/5/16387_fsm"].map((name) => [name, hashOf(name)]),
  );
  assert.deepEqual(
    packed.files.map(({ name, fullBytes }) => [name, fullBytes]),
    [
      ["/base/5/16385", pages.length],
      ["/base/5/16386_vm", undefined],
      ["/base/5/16389", undefined],
    ],
  );
  assert.deepEqual(packed.contents.get("/base/5/16386_vm"), bytes(PAGE_BYTES, 2));
});
