import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { StorageAccessError, StorageError } from "../../src/errors.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { objectsOf, segmentName, storageOf, type World } from "../retention/world.ts";
import { changeControl } from "../support/control-file.ts";
import { FaultyStorage } from "../support/faulty-storage.ts";
import { postgresBytes } from "../support/postgres-fixtures.ts";
import { tarArchive } from "../support/tar-archive.ts";

const { signal } = new AbortController();
const NAME = `base_${segmentName(1, 19)}`;
const CONTROL = `basebackups_005/${NAME}/tar_partitions/pg_control.tar`;

/** The backup goes from segment 19 to 22, timeline 1 was left in segment `forkSegment`. */
function worldWith(forkSegment: number): World {
  return {
    timelines: [
      { id: 1, parent: 0, forkSegment: 10, endSegment: 21, holes: [], hasHistory: false },
      { id: 2, parent: 1, forkSegment, endSegment: 40, holes: [], hasHistory: true },
    ],
    backups: [
      {
        name: NAME,
        timeline: 1,
        segment: 19,
        lastSegment: 22,
        base: undefined,
        startMs: 0,
        finishMs: 1,
        isPermanent: false,
        corruptPages: 0,
        hasControl: true,
        isSentinelThere: true,
      },
    ],
  };
}

const running = Buffer.from(postgresBytes(17, "pg_control.running"));
const controlOn = (minRecoveryTimeline: number): Buffer =>
  changeControl(running, { minRecoveryTimeline });
const tarOf = (content: Uint8Array): Buffer => tarArchive({ name: "global/pg_control", content });

/** The faults are of the read of pg_control. */
async function endOf(control: Buffer | undefined, { forkSegment = 20, error = new Error() } = {}) {
  const storage = await storageOf(objectsOf(worldWith(forkSegment)));
  if (control === undefined) await storage.delete([CONTROL], { signal });
  else await storage.put(CONTROL, bytesSource(control), { signal });
  const watched = new FaultyStorage(storage);
  if (error.message !== "") {
    const reads = new FaultyStorage(storage);
    await readCatalogue(reads, { signal });
    const keys = reads.calls.filter(({ method }) => method === "get").map(({ key }) => key);
    watched.fault("get", keys.indexOf(CONTROL) + 1, { kind: "fail", error });
  }
  const { backups } = await readCatalogue(watched, { signal });
  const isRead = watched.calls.some(({ method, key }) => method === "get" && key === CONTROL);
  return { endTimeline: backups[0]?.endTimeline, isRead };
}

describe("the timeline on which a backup ended", () => {
  test("is what its pg_control says", async () => {
    assert.deepEqual(await endOf(tarOf(controlOn(2))), { endTimeline: 2, isRead: true });
  });

  const wrong = controlOn(2);
  wrong[100] = (wrong[100] ?? 0) ^ 1;
  const cases: readonly (readonly [string, Buffer | undefined])[] = [
    ["of a primary, which has none", tarOf(controlOn(0))],
    ["of a standby that stayed", tarOf(controlOn(1))],
    ["that is not there", undefined],
    ["that is empty", Buffer.alloc(0)],
    ["that is cut off", tarOf(controlOn(2)).subarray(0, 4000)],
    ["with a wrong bit", tarOf(wrong)],
    ["of another size", tarOf(controlOn(2).subarray(0, 8191))],
    ["that is no archive", Buffer.from("x")],
  ];
  for (const [name, control] of cases) {
    test(`is its own by a pg_control ${name}`, async () => {
      assert.equal((await endOf(control)).endTimeline, undefined);
    });
  }

  test("is its own where nothing left its timeline between start and end", async () => {
    for (const forkSegment of [18, 30]) {
      const found = await endOf(tarOf(controlOn(2)), { forkSegment });
      assert.deepEqual(found, { endTimeline: undefined, isRead: false });
    }
  });

  test("is its own where pg_control may not be read, and unknown while the store is away", async () => {
    const denied = new StorageAccessError("no");
    const found = await endOf(tarOf(controlOn(2)), { error: denied });
    assert.deepEqual(found, { endTimeline: undefined, isRead: true });
    const away = new StorageError("away", { isRetryable: false });
    await assert.rejects(endOf(tarOf(controlOn(2)), { error: away }), away);
  });
});
