import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { ensureRepositoryIdentity, readRepositoryIdentity } from "../../src/archive/identity.ts";
import { StorageError } from "../../src/errors.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { formatIdentity } from "../../src/layout/identity.ts";
import { formatSentinel } from "../../src/layout/sentinel.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { fail, hang, RecordedStorage } from "./recorded-storage.ts";

const OURS = 7_710_511_401_606_644_801n;
const THEIRS = 7_000_000_000_000_000_001n;
const key = "walnut_005/cluster.json";
const { signal } = new AbortController();

let memory = new MemoryStorage();
let storage = new RecordedStorage(memory);
beforeEach(() => {
  memory = new MemoryStorage();
  storage = new RecordedStorage(memory);
});

async function put(path: string, text: string): Promise<void> {
  await memory.put(path, bytesSource(Buffer.from(text)), { signal });
}

const sentinel = (systemId: bigint | undefined) =>
  formatSentinel({ systemId, isFilesMetadataDisabled: false, isPermanent: false });

test("an empty repository is taken, and belongs to us from then on", async () => {
  assert.equal(await readRepositoryIdentity(storage, { signal }), undefined);
  storage.takeCalls();
  await ensureRepositoryIdentity(storage, OURS, { signal });
  assert.deepEqual(storage.takeCalls(), [`get ${key}`, "list basebackups_005/", `put new ${key}`]);
  assert.equal(await readRepositoryIdentity(storage, { signal }), OURS);

  storage.takeCalls();
  await ensureRepositoryIdentity(storage, OURS, { signal });
  assert.deepEqual(storage.takeCalls(), [`get ${key}`]);
});

test("another cluster is refused, and nothing is written", async () => {
  await ensureRepositoryIdentity(memory, THEIRS, { signal });
  await assert.rejects(ensureRepositoryIdentity(storage, OURS, { signal }), {
    name: "WrongClusterError",
    message:
      `this server is cluster ${OURS}, but repository memory://test belongs to cluster ${THEIRS} ` +
      `(says ${key})`,
  });
  assert.deepEqual(storage.takeCalls(), [`get ${key}`]);
});

test("a WAL-G repository with backups of ours is taken", async () => {
  await put(
    "basebackups_005/base_000000010000000000000002_backup_stop_sentinel.json",
    sentinel(OURS),
  );
  await put("basebackups_005/base_000000010000000000000002/metadata.json", "{}");
  await ensureRepositoryIdentity(storage, OURS, { signal });
  assert.equal(await readRepositoryIdentity(memory, { signal }), OURS);
});

test("a WAL-G repository with a backup of another cluster is refused", async () => {
  const name = "basebackups_005/base_000000010000000000000002_backup_stop_sentinel.json";
  await put(name, sentinel(THEIRS));
  await assert.rejects(ensureRepositoryIdentity(storage, OURS, { signal }), {
    name: "WrongClusterError",
    message: new RegExp(`belongs to cluster ${THEIRS} \\(says ${name}\\)$`),
  });
  assert.deepEqual(memory.keys, [name]);
});

test("sentinels that don't say whose they are, or that nobody can read, say nothing", async () => {
  await put("basebackups_005/base_000000010000000000000002_backup_stop_sentinel.json", "{}");
  await put("basebackups_005/base_000000010000000000000003_backup_stop_sentinel.json", "{");
  await ensureRepositoryIdentity(storage, OURS, { signal });
  assert.equal(await readRepositoryIdentity(memory, { signal }), OURS);
});

test("at most five sentinels are read", async () => {
  for (let number = 1; number <= 9; number += 1) {
    const name = `base_00000001000000000000000${number}`;
    await put(`basebackups_005/${name}_backup_stop_sentinel.json`, sentinel(OURS));
  }
  await ensureRepositoryIdentity(storage, OURS, { signal });
  const read = storage.takeCalls().filter((call) => call.includes("sentinel"));
  assert.deepEqual(
    read.map((call) => call.slice(-27, -26)),
    ["5", "6", "7", "8", "9"],
  );
});

for (const [winner, outcome] of [
  [OURS, "is no conflict when it is this cluster"],
  [THEIRS, "loses to another cluster"],
] as const) {
  test(`a push that comes second ${outcome}`, async () => {
    storage.interceptOnce(/^put/, async (next) => {
      await put(key, formatIdentity(winner));
      await next();
    });
    const second = ensureRepositoryIdentity(storage, OURS, { signal });
    if (winner === OURS) await second;
    else await assert.rejects(second, { name: "WrongClusterError" });
    assert.equal(await readRepositoryIdentity(memory, { signal }), winner);
  });
}

const damaged = [
  { name: "empty", text: "" },
  { name: "no JSON", text: "cluster 7" },
  { name: "without the member", text: "{}" },
  { name: "text for the number", text: '{"system_identifier":"7"}' },
  { name: "too long", text: `{"system_identifier":7,"x":"${"x".repeat(70_000)}"}` },
];
for (const { name, text } of damaged) {
  test(`an identity that is ${name} is damage, and stays`, async () => {
    await put(key, text);
    await assert.rejects(ensureRepositoryIdentity(storage, OURS, { signal }), {
      name: "DamagedError",
      message: /^object walnut_005\/cluster\.json in memory:\/\/test is damaged: /,
    });
    assert.equal(memory.bytesOf(key)?.toString(), text);
  });
}

for (const method of ["get walnut", "list", "get basebackups", "put"]) {
  test(`a failure of "${method}" is passed on`, async () => {
    const name = "basebackups_005/base_000000010000000000000002_backup_stop_sentinel.json";
    await put(name, sentinel(OURS));
    const error = new StorageError("the store answered 503", { isRetryable: true });
    storage.interceptOnce(new RegExp(`^${method}`), fail(error));
    await assert.rejects(ensureRepositoryIdentity(storage, OURS, { signal }), error);
    assert.equal(memory.bytesOf(key), undefined);
    await ensureRepositoryIdentity(storage, OURS, { signal });
  });
}

test("an abort while the store does not answer ends the wait", async () => {
  storage.interceptOnce(/^list/, hang);
  const controller = new AbortController();
  const waiting = ensureRepositoryIdentity(storage, OURS, { signal: controller.signal });
  controller.abort(new Error("enough"));
  await assert.rejects(waiting, { message: "enough" });
});
