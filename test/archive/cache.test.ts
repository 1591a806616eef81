import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fc } from "../support/property.ts";
import { type ArchiveMemory, readArchiveMemory, rememberArchive } from "../../src/archive/cache.ts";
import { silentLog } from "../../src/io/log.ts";

const directory = await mkdtemp(join(tmpdir(), "walnut-cache-"));
after(() => rm(directory, { recursive: true, force: true }));

const place = (name: string, storageName = "memory://test") => ({
  directory: join(directory, name),
  storageName,
  log: silentLog,
});

test("what was remembered is read again, whatever it is", async () => {
  const memories = fc.record(
    {
      systemId: fc.bigInt({ min: 1n, max: (1n << 64n) - 1n }),
      pushExtension: fc.constantFrom("", "zst", "lz4", "br", "lzma"),
      fetchExtension: fc.constantFrom("", "zst", "gz"),
    },
    { requiredKeys: [] },
  );
  await fc.assert(
    fc.asyncProperty(fc.webUrl(), memories, async (storageName, memory: ArchiveMemory) => {
      const here = place("round-trip", storageName);
      await rememberArchive(here, await readArchiveMemory(here), memory);
      const read = await readArchiveMemory(here);
      for (const [name, value] of Object.entries(memory)) {
        assert.equal(Object.entries(read).find(([known]) => known === name)?.[1], value);
      }
    }),
    { numRuns: 50 },
  );
});

test("a change keeps the rest, and each storage has its own memory", async () => {
  const here = place("change");
  await rememberArchive(here, {}, { systemId: 7n, pushExtension: "zst" });
  await rememberArchive(here, await readArchiveMemory(here), { fetchExtension: "lz4" });
  assert.deepEqual(await readArchiveMemory(here), {
    systemId: 7n,
    pushExtension: "zst",
    fetchExtension: "lz4",
  });
  assert.deepEqual(await readArchiveMemory(place("change", "memory://other")), {});
});

test("what is known already is not written again", async () => {
  const here = place("unchanged");
  await rememberArchive(here, { systemId: 7n }, { systemId: 7n });
  await assert.rejects(readdir(here.directory), { code: "ENOENT" });
});

test("no temporary file stays, and a stale one is no obstacle", async () => {
  const here = place("stale");
  await rememberArchive(here, {}, { systemId: 1n });
  const [file = ""] = await readdir(here.directory);
  await writeFile(join(here.directory, `${file}.tmp`), "half a li");
  await rememberArchive(here, { systemId: 1n }, { systemId: 2n });
  assert.deepEqual(await readdir(here.directory), [file]);
  assert.deepEqual(await readArchiveMemory(here), { systemId: 2n });
});

const unreadable = [
  { name: "empty", text: "" },
  { name: "torn", text: '{"storage":"memory://te' },
  { name: "not an object", text: "7" },
  { name: "null", text: "null" },
  { name: "of another storage", text: '{"storage":"memory://other","system_identifier":"7"}' },
  { name: "number for text", text: '{"storage":"memory://test","system_identifier":7}' },
  { name: "no digits", text: '{"storage":"memory://test","system_identifier":"0x7"}' },
  { name: "path for extension", text: '{"storage":"memory://test","push_extension":"../x"}' },
];
for (const { name, text } of unreadable) {
  test(`a memory that is ${name} is no memory`, async () => {
    const here = place(name.replaceAll(" ", "-"));
    await rememberArchive(here, {}, { systemId: 1n });
    const [file = ""] = await readdir(here.directory);
    await writeFile(join(here.directory, file), text);
    assert.deepEqual(await readArchiveMemory(here), {});
  });
}

test("a directory that can't be written is no failure", async () => {
  await writeFile(join(directory, "file"), "");
  const here = place("file");
  await rememberArchive(here, {}, { systemId: 1n });
  assert.deepEqual(await readArchiveMemory(here), {});

  const locked = place("locked");
  await mkdir(locked.directory);
  await chmod(locked.directory, 0o500);
  await rememberArchive(locked, {}, { systemId: 1n });
  await chmod(locked.directory, 0o700);
});
