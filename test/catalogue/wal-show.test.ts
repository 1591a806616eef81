import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { walShow } from "../../src/commands/wal-show.ts";
import { walVerify } from "../../src/commands/wal-verify.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { systemClock } from "../../src/io/clock.ts";
import { gapKey } from "../../src/layout/keys.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import { runCommand } from "../support/command-run.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { unpackWalgFixture, WALG_CASES } from "../support/walg-fixture.ts";

const signal = AbortSignal.timeout(60_000);

/** WAL-G shows the object's time, we what the backup itself recorded. */
function withoutTimes(text: string): unknown {
  return JSON.parse(text, (name, value: unknown) => (name === "time" ? "" : value));
}

interface Shown {
  readonly end_segment: string;
  readonly id: number;
}

describe("what WAL-G says of its own repositories", () => {
  for (const name of WALG_CASES) {
    test(name, async () => {
      await using fixture = await unpackWalgFixture(name);
      await using storage = new DirectoryStorage(fixture.repository, systemClock);

      const table = await runCommand(walShow, storage, []);
      assert.equal(table.stdout.trimEnd(), fixture.expected("wal-show.txt").trimEnd());

      const json = await runCommand(walShow, storage, ["--detailed-json"]);
      assert.deepEqual(withoutTimes(json.stdout), withoutTimes(fixture.expected("wal-show.json")));
      assert.ok(!json.stdout.endsWith("\n"));

      const last: Shown | undefined = JSON.parse(json.stdout).at(-1);
      const segment = BigInt(`0x${last?.end_segment.slice(16) ?? ""}`);
      // The fixtures end with a switch: the server wrote into the segment behind the last one.
      const lsn = `0/${(segment * 16n * 1024n * 1024n + 40n).toString(16)}`;
      const place = ["--timeline", String(last?.id), "--lsn", lsn];
      const verified = await runCommand(walVerify, storage, [
        "integrity",
        "timeline",
        "--json",
        ...place,
      ]);
      assert.equal(verified.stdout, fixture.expected("wal-verify.json").trimEnd());
      const text = await runCommand(walVerify, storage, ["integrity", ...place]);
      assert.match(text.stdout, /integrity check status: OK\n/);
      assert.doesNotMatch(text.stdout + text.log.join("\n"), /FAILURE/);
    });
  }
});

async function archiveOf(...names: readonly string[]): Promise<MemoryStorage> {
  const storage = new MemoryStorage();
  for (const name of names) {
    await storage.put(`wal_005/${name}`, bytesSource(Buffer.from("x")), { signal });
  }
  return storage;
}

const segment = (low: number, timeline = 1) =>
  `0000000${timeline}00000000${low.toString(16).toUpperCase().padStart(8, "0")}`;

describe("an archive with holes", () => {
  test("wal-show names what is missing", async () => {
    const storage = await archiveOf(
      `${segment(2)}.lz4`,
      `${segment(5)}.lz4`,
      `${segment(5)}.partial`,
      `${segment(9)}.json`,
      "ZZZZZZZZZZZZZZZZZZZZZZZZ",
    );
    const { stdout } = await runCommand(walShow, storage, ["--detailed-json"]);
    assert.deepEqual(JSON.parse(stdout), [
      {
        id: 1,
        parent_id: 0,
        switch_point_lsn: 0,
        start_segment: segment(2),
        end_segment: segment(5),
        segments_count: 2,
        missing_segments: [segment(3), segment(4)],
        segment_range_size: 4,
        status: "LOST_SEGMENTS",
      },
    ]);
  });

  test("an empty archive has no timelines", async () => {
    const storage = await archiveOf();
    const { stdout } = await runCommand(walShow, storage, ["--detailed-json"]);
    assert.equal(stdout, "[]");
  });

  const present = [1, 2, 3, 4, 6].map((low) => segment(low));
  const check = [
    "integrity",
    "--json",
    "--timeline=1",
    `--lsn=0/${((20 << 24) + 40).toString(16)}`,
  ];

  test("what is lost fails, and only the option says 0 all the same", async () => {
    const storage = await archiveOf(...present);
    const limits = { uploadConcurrency: 3, integrityMaxDelayedWals: 2 };
    await assert.rejects(runCommand(walVerify, storage, check, limits), {
      name: "UnsoundError",
      message: "wal-verify integrity: FAILURE",
    });
    const { stdout } = await runCommand(walVerify, storage, check, {
      ...limits,
      isWalVerifyExitZero: true,
    });
    const { integrity } = JSON.parse(stdout);
    assert.equal(integrity.status, "FAILURE");
    assert.deepEqual(
      integrity.details.map((run: Readonly<Record<string, unknown>>) => [
        run["start_segment"],
        run["segments_count"],
        run["status"],
      ]),
      [
        [segment(1), 4, "FOUND"],
        [segment(5), 1, "MISSING_LOST"],
        [segment(6), 1, "FOUND"],
        [segment(7), 8, "MISSING_LOST"],
        [segment(15), 3, "MISSING_UPLOADING"],
        [segment(18), 2, "MISSING_DELAYED"],
      ],
    );
  });

  test("what the queue policy gave up is lost, however new it is", async () => {
    const storage = await archiveOf(...present);
    const gap = bytesSource(Buffer.from("{}"));
    for (const low of [6, 19]) await storage.put(gapKey(segment(low)), gap, { signal });
    const options = { isWalVerifyExitZero: true, uploadConcurrency: 16 };
    const { stdout } = await runCommand(walVerify, storage, check, options);
    const { integrity } = JSON.parse(stdout);
    assert.equal(integrity.status, "FAILURE");
    const lost = integrity.details.filter((run: Readonly<Record<string, unknown>>) => {
      return run["status"] === "MISSING_LOST";
    });
    assert.deepEqual(
      lost.map((run: Readonly<Record<string, unknown>>) => run["start_segment"]),
      [segment(19)],
    );
  });

  test("what may be late is a warning, and what went before the first segment, too", async () => {
    const storage = await archiveOf(segment(4), segment(5));
    const late = ["integrity", "timeline", "--json", "--timeline=1", "--lsn=0/8000028"];
    const { stdout } = await runCommand(walVerify, storage, late);
    assert.equal(JSON.parse(stdout).integrity.status, "WARNING");
    assert.equal(JSON.parse(stdout).timeline.status, "OK");
  });

  test("another timeline in the archive fails", async () => {
    const storage = await archiveOf(segment(4), segment(5, 3));
    const words = ["timeline", "--timeline=2", "--lsn=0/6000028"];
    await assert.rejects(runCommand(walVerify, storage, words), { name: "UnsoundError" });
  });
});

for (const words of [[], ["x"], ["timeline", "--timeline=1"], ["timeline", "--lsn=0/1"]]) {
  test(`wal-verify ${words.join(" ")} is a wrong command line`, async () => {
    await assert.rejects(runCommand(walVerify, new MemoryStorage(), words), {
      name: "UsageError",
    });
  });
}
