import assert from "node:assert/strict";
import { test } from "node:test";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { judgeNames } from "../../src/catalogue/verify-names.ts";
import { planWindows } from "../../src/catalogue/wal-windows.ts";
import { walView } from "../../src/catalogue/wal-view.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { MemoryStorage } from "../support/memory-storage.ts";

const { signal } = new AbortController();
const HISTORY = "1\t0/7000000\tno recovery target specified\n";

async function findings(objects: Readonly<Record<string, string>>): Promise<readonly string[]> {
  const storage = new MemoryStorage();
  for (const [name, text] of Object.entries(objects)) {
    await storage.put(`wal_005/${name}`, bytesSource(Buffer.from(text)), { signal });
  }
  const catalogue = await readCatalogue(storage, { signal });
  const view = walView(catalogue);
  const found = judgeNames(catalogue, planWindows(view, catalogue.backups), view);
  return found.map(({ kind, subject }) => `${kind} ${subject}`);
}

const FIRST = { "000000010000000000000006.zst": "x" };
const SECOND = { "000000020000000000000007.zst": "x" };
const THIRD = { "000000030000000000000008.partial.lz4": "x" };

test("a timeline whose history is lost is named, unless the repository begins on it (P07)", async () => {
  const second = "missing wal_005/00000002.history";
  const third = "missing wal_005/00000003.history";
  assert.deepEqual(await findings({ ...FIRST, ...SECOND, ...THIRD }), [second, third]);
  assert.deepEqual(await findings({ ...SECOND, ...THIRD }), [third]);
  assert.deepEqual(await findings(SECOND), []);
  assert.deepEqual(await findings({ ...FIRST, ...SECOND, "00000002.history.zst": "?" }), [
    "damaged wal_005/00000002.history.zst",
  ]);
  assert.deepEqual(await findings({ ...FIRST, ...SECOND, "00000002.history": HISTORY }), []);
});
