import assert from "node:assert/strict";
import { copyFile, rename, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { readWriterClaim } from "../../src/archive/writer-claims.ts";
import { info } from "../../src/commands/info.ts";
import { codecOf } from "../../src/codec/table.ts";
import { StorageError } from "../../src/errors.ts";
import { formatWriterClaim } from "../../src/layout/writer-claim.ts";
import { runCommand } from "../support/command-run.ts";
import {
  changeControl,
  IN_ARCHIVE_RECOVERY,
  IN_CRASH_RECOVERY,
  IN_PRODUCTION,
} from "../support/control-file.ts";
import { onTimeline, recordWal, walFile } from "../support/real-wal.ts";
import { fail } from "./recorded-storage.ts";
import { flipBit, openWorkbench, type Workbench } from "./workbench.ts";

const wal = await recordWal();
const [first = "", second = "", third = ""] = wal.segments;
const CLAIM = "walnut_005/writers/00000001.json";
const HISTORY = Buffer.from("1\t0/A000000\tno recovery target specified\n");

let bench: Workbench;
beforeEach(async () => {
  bench = await openWorkbench();
});
afterEach(() => bench[Symbol.asyncDispose]());

/** A data directory with these files in pg_wal. */
async function server(
  directory: string,
  files: Readonly<Record<string, Uint8Array>>,
  state = IN_PRODUCTION,
) {
  await bench.file(`${directory}/global/pg_control`, changeControl(wal.control, { state }));
  for (const [name, bytes] of Object.entries(files)) {
    await bench.file(`${directory}/pg_wal/${name}`, bytes);
  }
  return {
    path: (name: string) => join(bench.directory, directory, "pg_wal", name),
    push: (name: string, options: Parameters<Workbench["push"]>[1] = {}) =>
      bench.push(join(bench.directory, directory, "pg_wal", name), {
        cacheDirectory: join(bench.directory, directory, "cache"),
        ...options,
      }),
  };
}

const all = Object.fromEntries(wal.segments.map((name) => [name, walFile(wal, name)]));

test("the first push claims the timeline; each further one is one request", async () => {
  const primary = await server("a", all);
  await primary.push(first);
  const claim = await readWriterClaim(bench.memory, 1, bench);
  assert.equal(claim?.host, hostname());
  assert.equal(claim?.extension, "zst");
  bench.storage.takeCalls();
  await primary.push(second);
  assert.deepEqual(bench.storage.takeCalls(), [`put new wal_005/${second}.zst`]);
});

test("a clone is refused before its first byte, and may fork", async () => {
  await (await server("a", all)).push(first);
  const clone = await server("b", all);
  await copyFile(
    join(bench.directory, "a", "pg_wal", second),
    join(bench.directory, "b", "pg_wal", second),
  );
  bench.storage.takeCalls();
  for (const _ of [1, 2]) {
    await assert.rejects(clone.push(second), {
      name: "RefusedError",
      message: new RegExp(`timeline 1 in memory://test is written by .*/a; this server is .*/b$`),
      hint: /--storage-prefix/,
    });
  }
  const puts = bench.storage.takeCalls().filter((call) => /^(put|delete)/.test(call));
  assert.deepEqual(puts, []);
});

test("a container that was made anew, after the machine was started again, is known", async () => {
  const primary = await server("a", all);
  await primary.push(first);
  const claim = await readWriterClaim(bench.memory, 1, bench);
  assert.ok(claim !== undefined);
  // As the claim would be if it was written before the machine was started.
  const old = formatWriterClaim({ ...claim, bootId: "before" });
  await bench.put(CLAIM, Buffer.from(old));
  await rm(join(bench.directory, "a", "cache"), { recursive: true });
  await primary.push(second);
  const renewed = await readWriterClaim(bench.memory, 1, bench);
  assert.deepEqual(renewed, claim);
});

test("a cache that was copied with the machine does not help a clone", async () => {
  await (await server("a", all)).push(first);
  const clone = await server("b", all);
  const cacheDirectory = join(bench.directory, "a", "cache");
  await assert.rejects(clone.push(second, { cacheDirectory }), { name: "RefusedError" });
});

test("a data directory that was moved on its machine is known; a copy beside it is not", async () => {
  await (await server("a", all)).push(first);
  const claim = await readWriterClaim(bench.memory, 1, bench);
  assert.ok(claim !== undefined);
  const moved = await server("b", all);
  await assert.rejects(moved.push(second), { name: "RefusedError" });
  await rename(join(bench.directory, "a"), join(bench.directory, "old"));
  for (const change of [{ bootId: "another" }, { host: "another" }]) {
    await bench.put(CLAIM, Buffer.from(formatWriterClaim({ ...claim, ...change })));
    await assert.rejects(moved.push(second), { name: "RefusedError" }, JSON.stringify(change));
  }
  await bench.put(CLAIM, Buffer.from(formatWriterClaim(claim)));
  assert.equal(await moved.push(second), "archived");
  assert.match((await readWriterClaim(bench.memory, 1, bench))?.dataDirectory ?? "", /\/b$/);
});

const names = [
  { one: "db1", other: "db1", isSame: true },
  { one: "db1", other: "db2", isSame: false },
  { one: undefined, other: "db2", isSame: false },
];
for (const { one, other, isSame } of names) {
  test(`servers named ${one} and ${other} are ${isSame ? "one" : "two"}`, async () => {
    await (await server("a", all)).push(first, { serverName: one });
    const pushed = (await server("b", all)).push(second, { serverName: other });
    if (isSame) assert.equal(await pushed, "archived");
    else await assert.rejects(pushed, { name: "RefusedError" });
  });
}

test("of two servers that claim at once one wins", async () => {
  const [one, other] = [await server("a", all), await server("b", all)];
  bench.storage.interceptOnce(/^put new walnut_005\/writers/, async (next) => {
    await one.push(first);
    await next();
  });
  await assert.rejects(other.push(first), { name: "RefusedError", message: /written by .*\/a;/ });
});

test("a damaged claim is no claim to pass over", async () => {
  await bench.put(CLAIM, Buffer.from("{"));
  const primary = await server("a", all);
  await assert.rejects(primary.push(first), { name: "DamagedError", hint: /take-over/ });
  assert.ok(!bench.memory.keys.some((key) => key.startsWith("wal_005/")));
});

test("a standby stores what the primary has not, and finds what it has", async () => {
  const primary = await server("a", all);
  await primary.push(first);
  const tail = Buffer.from(all[third] ?? "");
  const standby = await server("b", { ...all, [third]: tail }, IN_ARCHIVE_RECOVERY);
  assert.equal(await standby.push(first), "already archived");
  assert.equal(await standby.push(second), "archived");
  assert.equal(await primary.push(second), "already archived");
  assert.equal(await primary.push(third), "archived");
  assert.equal(await standby.push(third), "already archived");
});

test("a standby without a claim by the primary makes none", async () => {
  const standby = await server("b", all, IN_ARCHIVE_RECOVERY);
  assert.equal(await standby.push(first), "archived");
  assert.equal(await readWriterClaim(bench.memory, 1, bench), undefined);
});

for (const name of ["standby.signal", "recovery.signal"]) {
  test(`with ${name} a server that replays its own WAL first claims nothing`, async () => {
    const copy = await server("b", all, IN_CRASH_RECOVERY);
    await bench.file(`b/${name}`, Buffer.of());
    assert.equal(await copy.push(first), "archived");
    assert.equal(await readWriterClaim(bench.memory, 1, bench), undefined);
    assert.equal(await (await server("a", all)).push(second), "archived");
    await rm(join(bench.directory, "b", name));
    await assert.rejects(copy.push(third), /timeline 1 .* is written by/);
  });
}

test("a promoted standby brings the history first, then writes both timelines", async () => {
  await (await server("a", all)).push(first);
  const next = onTimeline(wal, third, 2);
  const files = { ...all, "00000002.history": HISTORY, [next.name]: next.bytes };
  const promoted = await server("b", files);
  bench.storage.takeCalls();
  assert.equal(await promoted.push(next.name), "archived");
  const puts = bench.storage.takeCalls().filter((call) => call.startsWith("put"));
  assert.deepEqual(puts, [
    "put new walnut_005/writers/00000002.json",
    "put new wal_005/00000002.history.zst",
    "put over walnut_005/sums/00000002.history.json",
    `put new wal_005/${next.name}.zst`,
  ]);
  assert.equal(await promoted.push(second), "archived");
});

test("no segment is acknowledged as long as its history is not", async () => {
  const next = onTimeline(wal, third, 2);
  const promoted = await server("b", { "00000002.history": HISTORY, [next.name]: next.bytes });
  for (let round = 1; round <= 3; round += 1) {
    const away = new StorageError("503", { isRetryable: true });
    bench.storage.interceptOnce(/^put new wal_005\/00000002.history/, fail(away));
    await assert.rejects(promoted.push(next.name), away);
    assert.ok(!bench.memory.keys.some((key) => key.includes(next.name)));
  }
  assert.equal(await promoted.push(next.name), "archived");
});

test("a history that is nowhere: no segment, but of an old timeline with a warning", async () => {
  const next = onTimeline(wal, third, 2);
  const promoted = await server("b", { [next.name]: next.bytes });
  await assert.rejects(promoted.push(next.name), {
    name: "RefusedError",
    message: /^00000002.history is neither in .*pg_wal nor in memory:\/\/test$/,
  });
  await bench.put("wal_005/00000002.history.lz4", await bench.compress("lz4", HISTORY));
  assert.equal(await promoted.push(next.name), "archived");

  await rm(promoted.path("00000002.history"), { force: true });
  const later = onTimeline(wal, third, 3);
  const text = "1\t0/A000000\tr\n\n2\t0/B000000\tr\n";
  const onThird = await server("c", {
    [later.name]: later.bytes,
    "00000003.history": Buffer.from(text),
  });
  const old = onTimeline(wal, second, 2);
  await writeFile(onThird.path(old.name), old.bytes);
  assert.equal(await onThird.push(old.name), "archived");
});

test("the archive has another history of this timeline: nothing of it is stored", async () => {
  const next = onTimeline(wal, third, 2);
  const other = Buffer.from("1\t0/A000100\tno recovery target specified\n");
  await bench.put("wal_005/00000002.history.lz4", await bench.compress("lz4", other));
  const promoted = await server("b", { "00000002.history": HISTORY, [next.name]: next.bytes });
  await assert.rejects(promoted.push(next.name), {
    name: "ConflictError",
    message: /00000002.history/,
  });
  assert.ok(!bench.memory.keys.some((key) => key.includes(next.name)));
});

test("the histories of ancestors that died before they stored them come along", async () => {
  const next = onTimeline(wal, third, 3);
  const text = "1\t0/A000000\tr\n\n2\t0/B000000\tr\n";
  const promoted = await server("c", {
    "00000002.history": HISTORY,
    "00000003.history": Buffer.from(text),
    [next.name]: next.bytes,
  });
  await promoted.push(next.name);
  for (const name of ["00000002.history", "00000003.history"]) {
    assert.ok(bench.memory.keys.includes(`wal_005/${name}.zst`), name);
  }
});

test("two nodes with one name: same records succeed, others stay out and are kept", async () => {
  const primary = await server("a", all);
  await primary.push(first);
  await primary.push(second);
  const changed = flipBit(all[second] ?? Buffer.of(), 20_000);
  const standby = await server("b", { [second]: changed }, IN_ARCHIVE_RECOVERY);
  const stored = bench.memory.bytesOf(`wal_005/${second}.zst`);
  for (const _ of [1, 2]) {
    await assert.rejects(standby.push(second), {
      name: "ConflictError",
      message:
        /sha256 \w{12}, local sha256 \w{12}.*; the timeline is written by .*\/a; brought by .*\/b\)$/,
      hint: /in quarantine, see walnut_005\/quarantine\/.*\.json\. /,
    });
  }
  assert.deepEqual(bench.memory.bytesOf(`wal_005/${second}.zst`), stored);
  const kept = bench.memory.keys.filter((key) => key.startsWith("walnut_005/quarantine/"));
  assert.equal(kept.length, 2);
  const description = JSON.parse(
    String(bench.memory.bytesOf(kept.find((key) => key.endsWith(".json")) ?? "")),
  );
  assert.equal(description.wal, second);
  assert.match(description.pushed_by, /\/b$/);
  assert.match(description.archived_by, /\/a$/);
  assert.equal(description.archived_as, `wal_005/${second}.zst`);

  // P09: the status names both, too.
  const { stdout } = await runCommand(info, bench.memory, ["--offline"]);
  assert.match(
    stdout,
    new RegExp(
      `^WARNING: two different ${second} were brought \\(the timeline is written by .*:.*/a; brought ` +
        "by .*:.*/b\\): .* in quarantine, see walnut_005/quarantine/.*json",
      "m",
    ),
  );
});

test("a quarantine that can't be written changes nothing", async () => {
  await (await server("a", all)).push(first);
  const changed = { [first]: flipBit(all[first] ?? Buffer.of(), 20_000) };
  const standby = await server("b", changed, IN_ARCHIVE_RECOVERY);
  bench.storage.interceptOnce(
    /^put new walnut_005\/quarantine/,
    fail(new StorageError("read only", { isRetryable: false })),
  );
  await assert.rejects(standby.push(first), { name: "ConflictError" });
});

test("a follower with another compression stores as the primary does", async () => {
  await (await server("a", all)).push(first);
  const standby = await server("b", all, IN_ARCHIVE_RECOVERY);
  const lz4 = { codec: codecOf("lz4") };
  assert.equal(await standby.push(first, lz4), "already archived");
  assert.equal(await standby.push(second, lz4), "archived");
  assert.ok(bench.memory.keys.includes(`wal_005/${second}.zst`));
});

type Pusher = { readonly push: (name: string) => Promise<unknown> };

/** The primary changes its compression, and has other content than the standby. */
async function changingServers(): Promise<{ readonly primary: Pusher; readonly standby: Pusher }> {
  const changed = flipBit(all[second] ?? Buffer.of(), 20_000);
  const primary = await server("a", { ...all, [second]: changed });
  await primary.push(first);
  const standby = await server("b", all, IN_ARCHIVE_RECOVERY);
  const codec = codecOf("lz4");
  return { standby, primary: { push: (name) => primary.push(name, { codec }) } };
}

function isStored(pushed: Promise<unknown>): Promise<boolean> {
  return pushed.then(
    () => true,
    () => false,
  );
}

/** At which call of the one the whole push of the other happens. */
const meetings = {
  primary: [/^get walnut_005\/writers/, /^put over/, /^list wal_/, /^put new wal_/],
  standby: [/^get walnut_005\/writers/, /^list wal_/, /^put new wal_/],
};
for (const slow of ["primary", "standby"] as const) {
  for (const meeting of meetings[slow]) {
    test(`other content at ${meeting.source} of the ${slow} that changes: one of both sees it`, async () => {
      const servers = await changingServers();
      const quick = slow === "primary" ? servers.standby : servers.primary;
      const outcomes: boolean[] = [];
      bench.storage.interceptOnce(meeting, async (next) => {
        outcomes.push(await isStored(quick.push(second)));
        await next();
      });
      outcomes.push(await isStored(servers[slow].push(second)));
      assert.equal(outcomes.length, 2);
      assert.ok(outcomes.includes(false), "both were acknowledged");
    });
  }
}

test("that a history was missing is not remembered as if it were there", async () => {
  const next = onTimeline(wal, second, 2);
  const later = onTimeline(wal, third, 2);
  const files = { [next.name]: next.bytes, [later.name]: later.bytes };
  const standby = await server("b", files, IN_ARCHIVE_RECOVERY);
  assert.equal(await standby.push(next.name), "archived");
  // Its standby.signal was removed: now it would write a timeline that no restore finds.
  const primary = await server("b", {});
  await assert.rejects(primary.push(later.name), {
    name: "RefusedError",
    message: /^00000002.history is neither/,
  });
});

test("a new compression is the timeline's before its next segment, whatever comes first", async () => {
  const label = `${second}.00000028.backup`;
  const primary = await server("a", { ...all, [label]: Buffer.from("START WAL LOCATION") });
  await primary.push(first, { codec: codecOf("lz4") });
  // A standby stores as the claim says.
  const standby = await server("b", all, IN_ARCHIVE_RECOVERY);
  await standby.push(second, { codec: codecOf("lz4") });

  await primary.push(label);
  assert.equal(await primary.push(second), "already archived");
  assert.equal((await readWriterClaim(bench.memory, 1, bench))?.extension, "zst");
});
