import assert from "node:assert/strict";
import { test } from "node:test";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { describeUnfinished } from "../../src/catalogue/unfinished-backups.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { partKey, runClaimKey, sentinelKey } from "../../src/layout/keys.ts";
import { MemoryStorage } from "../support/memory-storage.ts";

const signal = AbortSignal.timeout(60_000);
const nameOf = (low: string, timeline = "00000001") => `base_${timeline}00000000000000${low}`;
const CLAIM_ID = "0123456789abcdef";

/** What is said of backups that have a part, those in `noted` with a claim, too. */
async function said(begun: readonly string[], noted: readonly string[], done: readonly string[]) {
  const storage = new MemoryStorage();
  const put = async (key: string): Promise<void> =>
    await storage.put(key, bytesSource(Buffer.from("{}")), { signal });
  for (const name of [...begun, ...done]) await put(partKey(name, 1, "zst"));
  for (const name of noted) await put(runClaimKey(name, 1_700_000_000_000, CLAIM_ID));
  for (const name of done) await put(sentinelKey(name));
  return describeUnfinished(await readCatalogue(storage, { signal }));
}

const lost = (name: string) => `${name} is being taken, or was given up`;
const resumable = (name: string) =>
  `${name} is being taken, or was interrupted: backup-push --full --resume may go on with it`;

test("tells of an interrupted backup that it can be resumed, of others not", async () => {
  const [older = "", middle = "", newer = ""] = ["10", "11", "12"].map((low) => nameOf(low));
  assert.deepEqual(await said([middle], [], []), [lost(middle)]);
  assert.deepEqual(await said([middle], [middle], [older]), [resumable(middle)]);
  // Retention may take what is older than a backup for abandoned.
  assert.deepEqual(await said([middle], [middle], [newer]), [lost(middle)]);
  assert.deepEqual(await said([middle, newer], [middle, newer], []), [
    lost(middle),
    resumable(newer),
  ]);
  assert.deepEqual(await said([middle, newer], [middle], []), [resumable(middle), lost(newer)]);
  const elsewhere = nameOf("11", "00000002");
  assert.deepEqual(await said([middle], [middle], [elsewhere]), [lost(middle)]);
});
