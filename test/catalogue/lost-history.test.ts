import assert from "node:assert/strict";
import { test } from "node:test";
import { readCatalogue } from "../../src/catalogue/catalogue.ts";
import { judgeNames } from "../../src/catalogue/verify-names.ts";
import { planWindows } from "../../src/catalogue/wal-windows.ts";
import { walView } from "../../src/catalogue/wal-view.ts";
import { info } from "../../src/commands/info.ts";
import { timeline } from "../../src/commands/timeline.ts";
import { walShow } from "../../src/commands/wal-show.ts";
import { walVerify } from "../../src/commands/wal-verify.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { runCommand } from "../support/command-run.ts";
import { MemoryStorage } from "../support/memory-storage.ts";

const { signal } = new AbortController();
const HISTORY = "1\t0/7000000\tno recovery target specified\n";

async function archive(objects: Readonly<Record<string, string>>): Promise<MemoryStorage> {
  const storage = new MemoryStorage();
  for (const [name, text] of Object.entries(objects)) {
    await storage.put(`wal_005/${name}`, bytesSource(Buffer.from(text)), { signal });
  }
  return storage;
}

async function findings(objects: Readonly<Record<string, string>>): Promise<readonly string[]> {
  const storage = await archive(objects);
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

test("timeline, info, wal-show and wal-verify tell of a lost history, too", async () => {
  const lost = { ...FIRST, ...SECOND };
  const warning = /^warning: the history of a timeline is lost: no restore .*timeline.*2/;
  const position = ["--timeline", "2", "--lsn", "0/8000000"];
  const status = async (objects: Readonly<Record<string, string>>, words = position) => {
    const storage = await archive(objects);
    const { stdout } = await runCommand(walVerify, storage, ["timeline", "--json", ...words]);
    return JSON.parse(stdout).timeline.status;
  };
  assert.equal(await status(lost), "WARNING");
  assert.equal(await status({ ...lost, "00000002.history": HISTORY }), "OK");
  await assert.rejects(status(lost, ["--timeline", "1", "--lsn", "0/8000000"]), {
    name: "UnsoundError",
  });

  const storage = await archive(lost);
  const text = await runCommand(walVerify, storage, ["timeline", ...position]);
  assert.match(text.stdout, /check status: WARNING\n[^]*\nTimelines whose history is lost: 2\n$/);
  const shown = await runCommand(timeline, storage, []);
  assert.match(shown.stdout, /^timeline 2, whose history is lost: no restore from before comes/m);
  const screen = await runCommand(info, storage, ["--offline"]);
  assert.match(screen.stdout, /^WARNING: the history of timeline 2 is lost: no restore from/m);
  const damaged = await archive({ ...FIRST, ...SECOND, "00000002.history": "?" });
  const other = await runCommand(info, damaged, ["--offline"]);
  assert.match(other.stdout, /^WARNING: wal_005\/00000002\.history: line 1 of a timeline history/m);
  const json = await runCommand(timeline, storage, ["--json"]);
  const told = JSON.parse(json.stdout).timelines.map(
    (one: { history_lost: boolean }) => one.history_lost,
  );
  assert.deepEqual(told, [false, true]);
  for (const { log } of [text, shown, json, await runCommand(walShow, storage, [])]) {
    assert.equal(log.filter((line) => warning.test(line)).length, 1, log.join("\n"));
  }
});
