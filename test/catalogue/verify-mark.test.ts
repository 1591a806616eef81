/** The object that says how a repository is encrypted, which `rekey` writes anew. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { verifyRepository } from "../../src/catalogue/verify.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { ENCRYPTION_MARK_KEY } from "../../src/layout/secrecy.ts";
import { formatMark } from "../../src/storage/encryption-guard.ts";
import { overlay } from "../../src/storage/overlay.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { putSyntheticBackup, specialEntries } from "../support/synthetic-backup.ts";

const signal = AbortSignal.timeout(60_000);
const options = {
  level: "full",
  jobs: 1,
  codecJobs: 1,
  isRelearning: false,
  clock: systemClock,
  onProgress: () => {},
  signal,
} as const;

/** What verify finds about the mark where the key in use is this one. */
async function findings(storage: MemoryStorage, keyId: string): Promise<readonly string[]> {
  const keyed = overlay(storage, { encryption: `libsodium ${keyId}` });
  const report = await verifyRepository(keyed, options);
  return report.findings
    .filter(({ subject }) => subject === ENCRYPTION_MARK_KEY)
    .map(({ text }) => text);
}

test("a mark that names the key in use is right, any other has to be as it was", async () => {
  const storage = new MemoryStorage();
  await putSyntheticBackup(storage, { entries: specialEntries() });
  const mark = async (keyId: string): Promise<void> => {
    const text = formatMark({ kind: "libsodium", ownKeyIds: [keyId] });
    await storage.put(ENCRYPTION_MARK_KEY, bytesSource(Buffer.from(text)), { signal });
  };
  await mark("aaaa1111");
  assert.deepEqual(await findings(storage, "aaaa1111"), []);
  // The new key is configured, nothing has it yet.
  assert.deepEqual(await findings(storage, "bbbb2222"), []);
  await mark("bbbb2222");
  assert.deepEqual(await findings(storage, "bbbb2222"), []);
  await mark("bbbb2223");
  assert.deepEqual(await findings(storage, "bbbb2222"), ["it is not what an earlier verify read"]);
});
