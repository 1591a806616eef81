import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { StorageError } from "../../src/errors.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { Deleter } from "../../src/retention/deleter.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import { PrefixedStorage } from "../../src/storage/prefixed.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { S3Emulation, type S3Request } from "../support/s3-emulation.ts";
import { backup, del, fill, openEmulated, world } from "./emulated.ts";
import { objectsOf, segmentName } from "./world.ts";

const signal = AbortSignal.timeout(60_000);

/** Answers a batch as S3 does that fails for some of its keys. */
function failingBatch(emulation: S3Emulation, isFailing: (key: string) => boolean) {
  return ({ operation, document, key: single }: S3Request) => {
    if (operation === "DeleteObject" && isFailing(single)) {
      return { status: 500, body: "<Error><Code>InternalError</Code></Error>" };
    }
    if (operation !== "DeleteObjects") return undefined;
    const keys = [...document.matchAll(/<Key>([^<]*)</g)].map(([, key = ""]) => key);
    const errors = keys.filter(isFailing).map((key) => {
      const name = `<Key>${key}</Key><Code>InternalError</Code><Message>try again</Message>`;
      return `<Error>${name}</Error>`;
    });
    for (const key of keys) if (!isFailing(key)) emulation.objects.delete(key);
    return { status: 200, body: `<DeleteResult>${errors.join("")}</DeleteResult>` };
  };
}

describe("objects of a page and more (E04)", () => {
  for (const expired of [999, 1000, 1001, 2500]) {
    test(`${expired} expired segments: all go, and nothing else`, async () => {
      await using emulation = await S3Emulation.start();
      await fill(emulation, objectsOf(world(expired)));
      await using storage = await openEmulated(emulation);
      await del(storage, "retain", "1");
      const left = [...emulation.objects.keys()].filter((key) =>
        /\/wal_005\/\w{24}\.zst$/.test(key),
      );
      assert.deepEqual(
        left.toSorted(),
        Array.from(
          { length: 9 },
          (_, index) => `repo/wal_005/${segmentName(1, expired + 1 + index)}.zst`,
        ),
      );
      assert.ok(emulation.objects.has("repo/somebody/else"));
    });
  }
});

describe("a batch that says 200 and fails for some keys (E03)", () => {
  test("those keys are tried again", async () => {
    await using emulation = await S3Emulation.start();
    await fill(emulation, objectsOf(world(50)));
    const failures = new Map<string, number>();
    emulation.intercept = failingBatch(emulation, (key) => {
      const count = failures.get(key) ?? 0;
      failures.set(key, count + 1);
      return key.endsWith("7.zst") && count < 2;
    });
    await using storage = await openEmulated(emulation);
    await del(storage, "retain", "1");
    assert.ok(![...emulation.objects.keys()].some((key) => key.endsWith("00000027.zst")));
  });

  test("what remains is named, the rest is removed, and the exit code is not 0", async () => {
    await using emulation = await S3Emulation.start();
    await fill(emulation, objectsOf(world(50)));
    const stuck = `repo/wal_005/${segmentName(1, 20)}.zst`;
    emulation.intercept = failingBatch(emulation, (key) => key === stuck);
    await using storage = await openEmulated(emulation);
    await assert.rejects(del(storage, "retain", "1"), {
      name: "StorageError",
      message: new RegExp(
        `^1 objects in .* could not be removed \\(\\d+ were\\): ${stuck.slice(5)}: `,
      ),
      hint: /Run the command again/,
    });
    const left = [...emulation.objects.keys()].filter((key) => /\/wal_005\/\w{24}\.zst$/.test(key));
    assert.equal(left.length, 10);
    emulation.intercept = () => undefined;
    await del(storage, "retain", "1");
    assert.ok(!emulation.objects.has(stuck));
    assert.ok(![...emulation.objects.keys()].some((key) => key.includes("removals")));
  });

  test("a sentinel that stays keeps its backup whole", async () => {
    await using emulation = await S3Emulation.start();
    await fill(emulation, objectsOf(world(50)));
    const before = new Set(emulation.objects.keys());
    const sentinel = `repo/basebackups_005/${backup(2).name}_backup_stop_sentinel.json`;
    emulation.intercept = failingBatch(emulation, (key) => key === sentinel);
    await using storage = await openEmulated(emulation);
    await assert.rejects(del(storage, "retain", "1"), { name: "StorageError" });
    const gone = [...before].filter((key) => !emulation.objects.has(key));
    assert.ok(gone.every((key) => key.includes("/wal_005/")));
    assert.ok(emulation.objects.has(`repo/wal_005/${segmentName(1, 2)}.zst`));
  });
});

async function putWorld(): Promise<MemoryStorage> {
  const storage = new MemoryStorage();
  for (const [key, text] of objectsOf(world(20))) {
    await storage.put(key, bytesSource(Buffer.from(text)), { signal });
  }
  return storage;
}

describe("a store that is full", () => {
  const full = new StorageError("no space left on the device", { isRetryable: false });
  for (const [about, isForGood] of [
    ["until something was removed", false],
    ["for good", true],
  ] as const) {
    test(`${about} can be emptied`, async () => {
      const memory = await putWorld();
      const storage = new FaultyStorage(memory);
      storage.fault("put", isForGood ? "every" : 1, { kind: "fail", error: full });
      const { log } = await del(storage, "retain", "1");
      assert.ok(log.some((line) => /^warning: the removal can't be noted .*no space/.test(line)));
      assert.ok(!memory.keys.some((key) => key.includes(`${backup(2).name}/`)));
      assert.ok(memory.keys.some((key) => key.includes(`${backup(21).name}/`)));
      assert.ok(!memory.keys.some((key) => key.includes("removals")));

      const changes = storage.calls.filter(({ method }) => method === "put" || method === "delete");
      const [first, sentinel, second] = changes;
      assert.ok(first?.key.startsWith("walnut_005/removals/"));
      assert.match(sentinel?.key ?? "", /_sentinel\.json$/);
      assert.equal(second?.key, first?.key);
    });
  }
});

async function filled(count: number): Promise<MemoryStorage> {
  const storage = new MemoryStorage();
  for (let index = 0; index < count; index += 1) {
    await storage.put(`k${String(index).padStart(4, "0")}`, bytesSource(Buffer.from("x")), {
      signal,
    });
  }
  return storage;
}

describe("deleter", () => {
  test("gives up when nothing succeeds any more, and writes the rest down", async () => {
    const inner = await filled(3000);
    const error = new StorageError("away", { isRetryable: false });
    const storage = new FaultyStorage(inner).fault("delete", "every", { kind: "fail", error });
    const deleter = new Deleter(storage, { signal });
    const left = await deleter.remove(inner.keys);
    assert.equal(left.size, 3000);
    assert.equal(deleter.removedCount, 0);
    assert.ok(storage.count("delete") < 30, `${storage.count("delete")} calls`);
    assert.match(deleter.failures.at(-1)?.reason ?? "", /^not tried/);
  });

  test("a stop is no failure", async () => {
    const storage = await filled(3);
    const controller = new AbortController();
    controller.abort(new Error("stop"));
    const deleter = new Deleter(storage, { signal: controller.signal });
    await assert.rejects(deleter.remove(storage.keys), { message: "stop" });
    assert.equal(storage.keys.length, 3);
  });
});

describe("what the store keeps", () => {
  test("of a bucket that keeps versions it is said that they stay", async () => {
    const answers = [
      { status: 200, body: statusText("<Status>Enabled</Status>"), isSaid: true },
      { status: 200, body: statusText("<Status>Suspended</Status>"), isSaid: false },
      { status: 200, body: statusText(""), isSaid: false },
      { status: 403, body: "<Error><Code>AccessDenied</Code></Error>", isSaid: false },
      { status: 501, body: "<Error><Code>NotImplemented</Code></Error>", isSaid: false },
    ];
    for (const { isSaid, ...answer } of answers) {
      await using emulation = await S3Emulation.start();
      await fill(emulation, objectsOf(world(5)));
      emulation.intercept = ({ query }) => (query.has("versioning") ? answer : undefined);
      await using storage = await openEmulated(emulation);
      const { log } = await del(storage, "retain", "1");
      const said = log.some((line) => /the bucket keeps versions/.test(line));
      assert.equal(said, isSaid, answer.body);
    }
  });
});

function statusText(status: string): string {
  return `<VersioningConfiguration>${status}</VersioningConfiguration>`;
}

const upload = (key: string, id: string, initiated: string): string =>
  `<Upload><Key>${key}</Key><UploadId>${id}</UploadId><Initiated>${initiated}</Initiated></Upload>`;

describe("what killed puts left", () => {
  test("uploads in parts are aborted when they are old", async () => {
    await using emulation = await S3Emulation.start();
    await fill(emulation, objectsOf(world(5)));
    const aborted: string[] = [];
    emulation.intercept = ({ operation, query, key }) => {
      if (operation === "AbortMultipartUpload")
        aborted.push(`${key} ${query.get("uploadId") ?? ""}`);
      if (!query.has("uploads")) return undefined;
      const isSecond = query.get("key-marker") === "repo/a";
      const entry = isSecond
        ? upload("repo/b", "2", new Date().toISOString()) +
          upload("repo/c", "3", "2026-01-01T00:00:00Z")
        : upload("repo/a", "1", "2026-01-01T00:00:00Z");
      const next =
        "<NextKeyMarker>repo/a</NextKeyMarker><NextUploadIdMarker>1</NextUploadIdMarker>";
      const body =
        `<ListMultipartUploadsResult><IsTruncated>${!isSecond}</IsTruncated>${next}` +
        `${entry}</ListMultipartUploadsResult>`;
      return { status: 200, body };
    };
    await using storage = await openEmulated(emulation);
    await del(storage, "garbage");
    assert.deepEqual(aborted, ["repo/a 1", "repo/c 3"]);
  });

  test("temporary files go when their names say that they are old", async (t) => {
    const root = mkdtempSync(join(tmpdir(), "walnut-garbage-"));
    t.after(() => rmSync(root, { recursive: true }));
    const directory = new DirectoryStorage(root, systemClock);
    const storage = new PrefixedStorage(directory, "repo");
    for (const [key, text] of objectsOf(world(5))) {
      await storage.put(key, bytesSource(Buffer.from(text)), { signal });
    }
    mkdirSync(join(root, "other"));
    const stamp = new Date().toISOString().replaceAll(/[-:]|\.\d+/g, "");
    const files = [
      "repo/wal_005/x.zst.tmp.20260101T000000Z-00c0ffee00c0ffee",
      `repo/wal_005/y.zst.tmp.${stamp}-00c0ffee00c0ffee`,
      "repo/wal_005/z.zst.tmp.20260101T000000Z-short",
      "other/x.zst.tmp.20260101T000000Z-00c0ffee00c0ffee",
    ];
    for (const file of files) writeFileSync(join(root, file), "half");
    await del(storage, "garbage", "BACKUPS");
    assert.ok(readdirSync(join(root, "repo/wal_005")).some((name) => name.startsWith("x.zst")));
    await del(storage, "garbage");
    const left = readdirSync(root, { recursive: true, encoding: "utf8" });
    assert.deepEqual(
      files.filter((file) => left.includes(file)),
      files.slice(1),
    );
  });
});
