import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { listBackups } from "../../src/backup/catalogue.ts";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { planCopy } from "../../src/catalogue/copy-plan.ts";
import { judgeNames } from "../../src/catalogue/verify-names.ts";
import { walView } from "../../src/catalogue/wal-view.ts";
import { planWindows } from "../../src/catalogue/wal-windows.ts";
import { expire } from "../../src/commands/expire.ts";
import { info } from "../../src/commands/info.ts";
import { timeline } from "../../src/commands/timeline.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { StorageAccessError } from "../../src/errors.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { metadataKey, sentinelKey } from "../../src/layout/keys.ts";
import type { ByteStream } from "../../src/io/bytes.ts";
import { runCommand } from "../support/command-run.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { objectsOf, segmentName, storageOf, type WorldBackup } from "../retention/world.ts";

const signal = AbortSignal.timeout(60_000);
const FULL = `base_${segmentName(1, 10)}`;
const MIDDLE = `base_${segmentName(1, 20)}_D_${segmentName(1, 10)}`;
const LAST = `base_${segmentName(1, 30)}_D_${segmentName(1, 20)}`;
const OTHER = `base_${segmentName(1, 40)}`;

/** A chain of three and a full backup. */
const backups = [FULL, MIDDLE, LAST, OTHER].map((name, index): WorldBackup => {
  const startMs = Date.UTC(2026, 9, 1 + index);
  const segment = 10 * (index + 1);
  return {
    name,
    timeline: 1,
    segment,
    lastSegment: segment,
    base: { [MIDDLE]: FULL, [LAST]: MIDDLE }[name],
    startMs,
    finishMs: startMs + 1000,
    isPermanent: false,
    corruptPages: 0,
    hasControl: true,
    isSentinelThere: true,
  };
});

const objects = objectsOf({
  timelines: [{ id: 1, parent: 0, forkSegment: 1, endSegment: 50, holes: [], hasHistory: false }],
  backups,
});

async function repository(
  damage: (text: string) => string | undefined,
  key = sentinelKey(MIDDLE),
): Promise<MemoryStorage> {
  const storage = await storageOf(objects);
  const text = damage(objects.get(key) ?? "");
  if (text === undefined) await storage.delete([key], { signal });
  else await storage.put(key, bytesSource(Buffer.from(text)), { signal });
  return storage;
}

const DAMAGES = {
  "cut off": (text: string) => text.slice(0, 100),
  empty: () => "",
  "no object": () => "null",
  UTF16: (text: string) => Buffer.from(text, "utf16le").toString("latin1"),
  "of an increment without base": () => "{}",
  gone: () => undefined,
  "in a circle": (text: string) => text.replaceAll(FULL, LAST),
  "of a base that is gone": (text: string) => text.replaceAll(FULL, `base_${segmentName(1, 9)}`),
} as const;

describe("a chain with a sentinel that is", () => {
  for (const [what, damage] of Object.entries(DAMAGES)) {
    test(`${what} can be restored from nowhere in it but its beginning`, async () => {
      const storage = await repository(damage);
      const { stdout } = await runCommand(timeline, storage, ["--json"]);
      const [shown] = JSON.parse(stdout).timelines;
      const problems = new Map<string, string | null | undefined>(
        shown.backups.map((one: { name: string; problem?: string }) => [one.name, one.problem]),
      );
      assert.equal(problems.get(FULL) ?? undefined, undefined);
      assert.equal(problems.get(OTHER) ?? undefined, undefined);
      assert.equal(typeof problems.get(LAST), "string", "the end of the chain");
      if (what !== "gone") assert.equal(typeof problems.get(MIDDLE), "string");
      assert.deepEqual(
        shown.windows.flatMap((one: { backups: string[] }) => one.backups),
        [FULL, OTHER],
      );

      const catalogue = await readCatalogue(storage, { signal });
      const wish = { isWithHistory: false };
      assert.throws(() => planCopy(catalogue, wish), /base_.* could not be restored: its /);
      assert.throws(() => planCopy(catalogue, { ...wish, names: [LAST] }), /could not be restored/);
      planCopy(catalogue, { ...wish, names: [OTHER] });
    });

    test(`${what} loses no base to a retention`, async () => {
      const storage = await repository(damage);
      const config = { retention: { ...defaultConfig({ cpuCount: 2 }).retention, fullCount: 1 } };
      await runCommand(expire, storage, ["--confirm"], config);
      const left = storage.keys.filter((key) => key.startsWith("basebackups_005/"));
      const isKept = (name: string) => left.some((key) => key.includes(`/${name}/`));
      assert.ok(isKept(OTHER));
      // A sentinel that is gone is nobody's; one that says who its base is, is taken at its word.
      if (["gone", "in a circle", "of a base that is gone"].includes(what)) return;
      assert.ok(isKept(FULL), "the base that its name tells");
    });
  }

  test("in a circle is named by verify", async () => {
    const catalogue = await readCatalogue(await repository(DAMAGES["in a circle"]), { signal });
    const view = walView(catalogue);
    const found = judgeNames(catalogue, planWindows(view, catalogue.backups), view);
    assert.deepEqual(
      found.map(({ kind, subject }) => [kind, subject]),
      [MIDDLE, LAST].map((name) => ["damaged", sentinelKey(name)]),
    );
  });
});

test("what can't be read names its object, and is shown though it is alone", async () => {
  const storage = await repository((text) => text.slice(0, 20), metadataKey(FULL));
  const { stdout } = await runCommand(info, storage, ["--offline"]);
  assert.match(stdout, new RegExp(`WARNING: ${FULL}: ${metadataKey(FULL)} is damaged: JSON ends`));

  const alone = new MemoryStorage();
  await alone.put(sentinelKey(FULL), bytesSource(Buffer.from("x")), { signal });
  const shown = await runCommand(timeline, alone, []);
  assert.match(shown.stdout, new RegExp(`${FULL} .* its sentinel can't be read`));
});

async function names(storage: MemoryStorage): Promise<readonly string[]> {
  return (await listBackups(storage, { hasMetadata: false, signal })).map(({ name }) => name);
}

describe("the list of backups", () => {
  test("has a backup in its place whose sentinel was damaged just now", async () => {
    const storage = await repository(DAMAGES["cut off"]);
    assert.deepEqual(await names(storage), [FULL, MIDDLE, LAST, OTHER]);
  });

  test("has nothing that only ends like a sentinel", async () => {
    const storage = await storageOf(objects);
    for (const name of [`old ${FULL}`, "..", `${FULL} (1)`]) {
      const key = `basebackups_005/${name}_backup_stop_sentinel.json`;
      await storage.put(key, bytesSource(Buffer.from("{}")), { signal });
    }
    assert.deepEqual(await names(storage), [FULL, MIDDLE, LAST, OTHER]);
  });

  test("goes on where one may not be read, and fails where none may", async () => {
    let denied = /base_.*14_D_/;
    class Guarded extends MemoryStorage {
      override get(...[key, options]: Parameters<MemoryStorage["get"]>): ByteStream {
        if (denied.test(key))
          throw new StorageAccessError(`${key}: permission denied`, { hint: "Ask." });
        return super.get(key, options);
      }
    }
    const storage = new Guarded();
    for (const [key, text] of objects) {
      await storage.put(key, bytesSource(Buffer.from(text)), { signal });
    }
    const entries = await listBackups(storage, { hasMetadata: false, signal });
    assert.deepEqual(
      entries.filter(({ sentinel }) => sentinel === undefined).map(({ name }) => name),
      [MIDDLE],
    );
    assert.equal((await readCatalogue(storage, { signal })).backups.length, 4);
    denied = /sentinel/;
    await assert.rejects(listBackups(storage, { hasMetadata: false, signal }), /permission denied/);
    await assert.rejects(readCatalogue(storage, { signal }), /permission denied/);
  });
});
