/** Objects that a store holds: locks for a time, legal holds on single objects. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  CreateBucketCommand,
  PutObjectLegalHoldCommand,
  PutObjectRetentionCommand,
  S3Client,
} from "@aws-sdk/client-s3";
import { StorageError } from "../../src/errors.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { openStorage } from "../../src/storage/open.ts";
import type { HeldDelete, ObjectHold, ObjectKey, Storage } from "../../src/storage/storage.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { s3Config } from "../support/s3-config.ts";
import { S3Emulation, type S3Request } from "../support/s3-emulation.ts";
import { availableS3Servers, startS3Server } from "../support/s3-server.ts";
import { backup, del, fill, openEmulated, world } from "./emulated.ts";
import { objectsOf, segmentName, type World } from "./world.ts";

const { signal } = new AbortController();
const LEGAL: ObjectHold = { isLegalHold: true };
const segmentKey = (segment: number): string => `wal_005/${segmentName(1, segment)}.zst`;
const sentinelOf = (segment: number): string =>
  `basebackups_005/${backup(segment).name}_backup_stop_sentinel.json`;
const isSegment = (key: string): boolean => /wal_005\/\w{24}\.zst$/.test(key);

/** Refuses to delete what it holds, or hides it. */
class HoldingStorage extends MemoryStorage {
  readonly held = new Map<ObjectKey, ObjectHold>();
  readonly #isRefusing: boolean;
  /** Of which it was asked. */
  readonly asked: ObjectKey[] = [];

  constructor(heldDelete: HeldDelete | undefined) {
    super();
    this.#isRefusing = heldDelete === "refused";
    this.upkeep = {
      async *listUnfinished() {},
      removeUnfinished: async () => {},
      heldDelete: async () => heldDelete,
      readHold: async (key) => {
        this.asked.push(key);
        return this.held.get(key);
      },
    };
  }

  static async of(what: World, heldDelete: HeldDelete | undefined): Promise<HoldingStorage> {
    const storage = new HoldingStorage(heldDelete);
    for (const [key, text] of objectsOf(what)) {
      await storage.put(key, bytesSource(Buffer.from(text)), { signal });
    }
    return storage;
  }

  override async delete(
    keys: readonly ObjectKey[],
    options: { readonly signal: AbortSignal },
  ): Promise<void> {
    const refused = keys.filter((key) => this.#isRefusing && this.held.has(key));
    await super.delete(
      keys.filter((key) => !refused.includes(key)),
      options,
    );
    const [first] = refused;
    if (first === undefined) return;
    throw new StorageError(`cannot delete ${first}: it is under a legal hold`, {
      isRetryable: false,
    });
  }
}

describe("where a delete would hide what is held", () => {
  for (const heldDelete of ["hidden", undefined] as const) {
    test(`each object is asked, and one alone stays, with its name (${heldDelete ?? "untold"})`, async () => {
      const storage = await HoldingStorage.of(world(50), heldDelete);
      storage.held.set(segmentKey(7), LEGAL);
      const before = storage.keys;
      const { log } = await del(storage, "retain", "1");
      const gone = before.filter((key) => !storage.keys.includes(key));
      assert.deepEqual(storage.keys.filter(isSegment).slice(0, 2), [segmentKey(7), segmentKey(51)]);
      assert.deepEqual(
        gone.filter((key) => !storage.asked.includes(key)),
        [],
        "nothing goes that was not asked for",
      );
      const line = log.find((one) => one.includes("the store holds WAL that would go")) ?? "";
      assert.ok(line.startsWith("warning: "), log.join("\n"));
      assert.ok(line.includes(segmentKey(7)) && line.includes("legal hold"), line);
      storage.held.clear();
      await del(storage, "retain", "1");
      assert.ok(!storage.keys.includes(segmentKey(7)));
    });
  }

  test("a folder without sentinel stays whole, and so does what speaks of WAL that goes", async () => {
    const left = { ...backup(2), isSentinelThere: false };
    const storage = await HoldingStorage.of(
      { ...world(50), backups: [left, backup(40), backup(51)] },
      "hidden",
    );
    const gap = `walnut_005/gaps/${segmentName(1, 7)}.json`;
    await storage.put(gap, bytesSource(Buffer.from("{}")), { signal });
    const folder = storage.keys.filter((key) => key.includes(`/${left.name}/`));
    assert.ok(folder.length > 1);
    for (const key of [folder[1] ?? "", gap]) storage.held.set(key, LEGAL);
    const { log } = await del(storage, "retain", "1");
    assert.ok([...folder, gap].every((key) => storage.keys.includes(key)));
    assert.ok(!storage.keys.some((key) => key.includes(backup(40).name)));
    assert.match(log.join("\n"), /a folder without sentinel is kept.*legal hold/);
    assert.match(log.join("\n"), /the store holds objects that would go.*gaps/);
    storage.held.clear();
    await del(storage, "retain", "1");
    assert.ok(![...folder, gap].some((key) => storage.keys.includes(key)));
  });
});

describe("where a delete of what is held is refused", () => {
  test("WAL is not asked for one by one; what is refused is named, and the run fails", async () => {
    const storage = await HoldingStorage.of(world(50), "refused");
    storage.held.set(segmentKey(7), LEGAL);
    await assert.rejects(del(storage, "retain", "1"), {
      name: "StorageError",
      message: new RegExp(`^1 objects in .*${segmentKey(7)}: .*legal hold$`),
    });
    assert.deepEqual(storage.keys.filter(isSegment).slice(0, 2), [segmentKey(7), segmentKey(51)]);
    assert.equal(storage.asked.filter(isSegment).length, 1);
  });

  test("a backup of which one object is held stays whole; so does WAL that is locked", async () => {
    const storage = await HoldingStorage.of(world(50), "refused");
    const part = storage.keys.find((key) => key.includes(`/${backup(2).name}/tar`)) ?? "";
    storage.held.set(part, LEGAL);
    const lockedUntil = new Date(Date.now() + 86_400_000);
    for (let segment = 30; segment < 60; segment += 1) {
      storage.held.set(segmentKey(segment), { isLegalHold: false, lockedUntil });
    }
    const { log } = await del(storage, "retain", "1");
    assert.ok(storage.keys.includes(part) && storage.keys.includes(sentinelOf(2)));
    const left = storage.keys.filter(isSegment);
    assert.deepEqual(left.slice(0, 2), [segmentKey(2), segmentKey(30)]);
    assert.match(log.join("\n"), /a backup is kept.*legal hold/);
    assert.match(log.join("\n"), /the store holds WAL that would go.*locked until/);
  });
});

test("where nothing can be held nothing is asked", async () => {
  const storage = await HoldingStorage.of(world(50), "none");
  await del(storage, "retain", "1");
  assert.deepEqual(storage.asked, []);
  assert.equal(storage.keys.filter(isSegment).length, 9);
});

const ENABLED =
  "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";
const errorText = (code: string): string => `<Error><Code>${code}</Code></Error>`;
const DENIED = { status: 403, body: errorText("AccessDenied") };
const WITHOUT = { status: 404, body: errorText("ObjectLockConfigurationNotFoundError") };
const UNKNOWN = { status: 501, body: errorText("NotImplemented") };
const versions = (status: string) => ({
  status: 200,
  body: `<VersioningConfiguration>${status}</VersioningConfiguration>`,
});
const VERSIONED = versions("<Status>Enabled</Status>");

const answers = [
  { title: "locks", locks: { status: 200, body: ENABLED }, versions: VERSIONED, isAsked: true },
  { title: "no locks", locks: WITHOUT, versions: VERSIONED, isAsked: false },
  { title: "a store without the request", locks: UNKNOWN, versions: DENIED, isAsked: false },
  { title: "no permission, versions", locks: DENIED, versions: VERSIONED, isAsked: true },
  { title: "no permission, no versions", locks: DENIED, versions: versions(""), isAsked: false },
  { title: "no permission at all", locks: DENIED, versions: DENIED, isAsked: true },
  // A store that passes over what it does not know answers with a list.
  { title: "another answer", locks: undefined, versions: versions(""), isAsked: false },
];

/** With locks; `headersOf` what it tells of an object. */
function locking(headersOf: (key: string) => Readonly<Record<string, string>>) {
  return ({ operation, key, query }: S3Request) => {
    if (query.has("object-lock")) return { status: 200, body: ENABLED };
    if (operation !== "HeadObject") return undefined;
    const headers = { "content-length": "1", etag: '"x"', ...headersOf(key) };
    return { status: 200, headers };
  };
}

describe("an S3 bucket", () => {
  for (const { title, locks, versions: told, isAsked } of answers) {
    test(`${title}: ${isAsked ? "each object is asked" : "nothing is asked"}`, async () => {
      await using emulation = await S3Emulation.start();
      await fill(emulation, objectsOf(world(20)));
      const heads: string[] = [];
      emulation.intercept = ({ operation, query, key }) => {
        if (operation === "HeadObject") heads.push(key);
        if (query.has("object-lock")) return locks;
        return query.has("versioning") ? told : undefined;
      };
      await using storage = await openEmulated(emulation);
      await del(storage, "retain", "1");
      assert.equal(heads.filter(isSegment).length, isAsked ? 20 : 0);
      assert.equal(
        heads.some((key) => key.includes("tar_partitions")),
        isAsked,
      );
    });
  }

  test("locked and held objects stay, and it is said until when", async () => {
    await using emulation = await S3Emulation.start();
    await fill(emulation, objectsOf(world(50)));
    const until = new Date(Date.now() + 86_400_000).toISOString();
    const sentinel = `repo/${sentinelOf(2)}`;
    const locked = `repo/${segmentKey(50)}`;
    const lock = {
      "x-amz-object-lock-mode": "COMPLIANCE",
      "x-amz-object-lock-retain-until-date": until,
    };
    const hold = { "x-amz-object-lock-legal-hold": "ON" };
    emulation.intercept = locking((key) => (key === sentinel ? hold : key === locked ? lock : {}));
    await using storage = await openEmulated(emulation);
    const { log } = await del(storage, "retain", "1");
    assert.ok(emulation.objects.has(sentinel));
    assert.ok(emulation.objects.has(locked));
    assert.ok(!emulation.objects.has(`repo/${segmentKey(49)}`));
    assert.match(log.join("\n"), /a backup is kept.*legal hold/);
    assert.match(log.join("\n"), /the store holds WAL that would go.*locked until/);
  });
});

const at = (key: string) => ({ Bucket: "locking", Key: `repo/${key}` });

/** Moto, which has locks and versions as AWS has them. */
async function startLocking(stack: AsyncDisposableStack) {
  const available = await availableS3Servers();
  const kind = available.find((one) => one === "moto" || one === "minio");
  if (kind === undefined) return undefined;
  const server = stack.use(await startS3Server(kind));
  const { endpoint, accessKeyId, secretAccessKey } = server;
  const client = new S3Client({
    endpoint,
    region: "us-east-1",
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
  });
  stack.defer(() => client.destroy());
  await client.send(
    new CreateBucketCommand({ Bucket: "locking", ObjectLockEnabledForBucket: true }),
  );
  const storage: Storage = stack.use(
    await openStorage(s3Config({ ...server, bucket: "locking" }, { prefix: "repo" }), {
      signal,
      requestTimeoutMs: 60_000,
      uploadConcurrency: 4,
    }),
  );
  return { client, storage };
}

test("a real server's legal hold on one old segment, and its locks", async () => {
  await using stack = new AsyncDisposableStack();
  const real = await startLocking(stack);
  if (real === undefined) return;
  const { client, storage } = real;
  for (const [key, text] of objectsOf(world(6))) {
    await storage.put(key, bytesSource(Buffer.from(text)), { signal });
  }
  const hold = async (status: "ON" | "OFF") =>
    await client.send(
      new PutObjectLegalHoldCommand({ ...at(segmentKey(3)), LegalHold: { Status: status } }),
    );
  await hold("ON");
  const until = new Date(Date.now() + 86_400_000);
  const retention = { Mode: "GOVERNANCE", RetainUntilDate: until } as const;
  await client.send(new PutObjectRetentionCommand({ ...at(segmentKey(5)), Retention: retention }));

  const listed = async (): Promise<readonly string[]> => {
    const keys: string[] = [];
    for await (const { key } of storage.list("wal_005/", { signal })) keys.push(key);
    return keys.filter(isSegment);
  };
  const { log } = await del(storage, "retain", "1");
  assert.deepEqual((await listed()).slice(0, 3), [3, 5, 7].map(segmentKey));
  assert.match(log.join("\n"), /the store holds WAL that would go/);
  await hold("OFF");
  await del(storage, "retain", "1");
  assert.deepEqual((await listed()).slice(0, 2), [5, 7].map(segmentKey));
});
