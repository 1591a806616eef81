import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { recordGap } from "../../src/archive/gaps.ts";
import { keepSpares } from "../../src/archive/spare-records.ts";
import { LocalFileError } from "../../src/errors.ts";

const { signal } = new AbortController();
/** Of a length that leaves no room for a temporary file's name: as no space, it lets none be made. */
const NAME = "0".repeat(240);
const gap = { name: NAME, systemId: 7n, atMs: 0, reason: "the store is away", isCopy: false };

let directory: string;
let gaps: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "walnut-spares-"));
  gaps = join(directory, "gaps");
  await mkdir(gaps);
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const spares = async () => (await readdir(join(directory, "spares"))).toSorted();

test("where no file can be made a gap is recorded in the place of a spare", async () => {
  await keepSpares(gaps);
  const all = await spares();
  await recordGap(gaps, gap, { signal });
  const text = await readFile(join(gaps, `${NAME}.json`), "utf8");
  const record: unknown = JSON.parse(text);
  assert.deepEqual(record, {
    version: 1,
    wal: NAME,
    system_identifier: "7",
    time: "1970-01-01T00:00:00.000Z",
    reason: "the store is away",
    role: "primary",
  });
  assert.ok(text.endsWith("}\n"), "nothing is left of the spare");
  assert.equal((await spares()).length, all.length - 1);
  await keepSpares(gaps);
  assert.deepEqual(await spares(), all);
});

test("spares have blocks of their own, and one that can't be used is passed over", async () => {
  await keepSpares(gaps);
  const all = await spares();
  for (const name of all) {
    const { blocks, size } = await stat(join(directory, "spares", name));
    assert.deepEqual([size, blocks > 0], [4096, true]);
  }
  for (const name of all.slice(0, -1)) {
    await rm(join(directory, "spares", name));
    await mkdir(join(directory, "spares", name));
  }
  await recordGap(gaps, gap, { signal });
  assert.deepEqual(await readdir(gaps), [`${NAME}.json`]);
});

test("without spares a gap that can't be recorded is said, and what can't be made is no failure", async () => {
  await assert.rejects(recordGap(gaps, gap, { signal }), LocalFileError);
  await writeFile(join(directory, "spares"), "a file in their place");
  await keepSpares(gaps);
  await assert.rejects(recordGap(gaps, gap, { signal }), LocalFileError);
  assert.deepEqual(await readdir(gaps), []);
});
