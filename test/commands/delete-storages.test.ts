/** WAL-G's scenarios of deleting from several storages (its tests named "multist"). */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { backupList } from "../../src/commands/backup-list.ts";
import { backupMark } from "../../src/commands/backup-mark.ts";
import { deleteCommand } from "../../src/commands/delete.ts";
import type { Command } from "../../src/commands/command.ts";
import { walVerify } from "../../src/commands/wal-verify.ts";
import { bytesSource } from "../../src/io/bytes.ts";
import { sentinelKey } from "../../src/layout/keys.ts";
import { type CommandRun, runCommand } from "../support/command-run.ts";
import { FailoverWorld } from "../support/failover-world.ts";
import {
  listed,
  nameOf,
  objectsOfOneTimeline,
  range,
  segments,
  type Wanted,
} from "../retention/one-timeline.ts";
import { segmentName } from "../retention/world.ts";

const signal = AbortSignal.timeout(60_000);

interface Placed extends Wanted {
  /** 0 is "default"; "both" a copy in each. */
  readonly store: 0 | 1 | "both";
}

const isWal = (line: string): boolean => line.includes(": wal_005/");

/** Segments and what else there is go into both in turn. */
class Stores {
  readonly #world = new FailoverWorld(2);

  static async of(...placed: readonly Placed[]): Promise<Stores> {
    const stores = new Stores();
    let turn = 0;
    for (const [key, text] of objectsOfOneTimeline(placed)) {
      const backup = placed.find((one) => new RegExp(`/${nameOf(one)}[_/](?!D)`).test(key));
      turn += 1;
      const store = backup?.store ?? (turn % 2 === 0 ? 0 : 1);
      const chosen = store === "both" ? [0, 1] : [store];
      for (const index of chosen) await stores.put(index, key, text);
    }
    return stores;
  }

  async put(index: number, key: string, text: string): Promise<void> {
    await this.#world.store(index).memory.put(key, bytesSource(Buffer.from(text)), { signal });
  }

  keys(index: number): readonly string[] {
    return this.#world.store(index).memory.keys;
  }

  text(index: number, key: string): string {
    return this.#world.store(index).memory.bytesOf(key)?.toString() ?? "";
  }

  async remove(index: number, key: string): Promise<void> {
    await this.#world.store(index).memory.delete([key], { signal });
  }

  async run<A>(command: Command<A>, ...words: readonly string[]): Promise<CommandRun> {
    return await runCommand(command, await this.#world.open(), words);
  }

  async del(...words: readonly string[]): Promise<CommandRun> {
    return await this.run(deleteCommand, ...words);
  }

  /** Backups in each of the two. */
  get listed(): readonly (readonly number[])[] {
    return [0, 1].map((index) => listed({ keys: [...this.keys(index)] }));
  }

  /** Of both together, ascending. */
  get segments(): readonly number[] {
    const keys = [0, 1].flatMap((index) => this.keys(index));
    return segments({ keys }).toSorted((a, b) => a - b);
  }

  /** Of a backup's folder: what lies where. */
  folder(one: Wanted): readonly number[] {
    const prefix = `basebackups_005/${nameOf(one)}/`;
    return [0, 1].map((index) => this.keys(index).filter((key) => key.startsWith(prefix)).length);
  }
}

describe("delete from several storages", () => {
  test("each copy of what goes is removed (delete_retain_full_multist)", async () => {
    const stores = await Stores.of(
      { segment: 10, store: "both" },
      { segment: 15, base: 10, store: "both" },
      { segment: 20, store: "both" },
      { segment: 25, base: 20, store: "both" },
    );
    await stores.del("retain", "FULL", "1");
    assert.deepEqual(stores.listed, [
      [10, 15, 20, 25],
      [10, 15, 20, 25],
    ]);
    await stores.del("retain", "FULL", "1", "--confirm");
    assert.deepEqual(stores.listed, [
      [20, 25],
      [20, 25],
    ]);
    assert.deepEqual(stores.folder({ segment: 10 }), [0, 0]);
    assert.deepEqual(stores.folder({ segment: 15, base: 10 }), [0, 0]);
    assert.deepEqual(stores.segments, range(20, 99));
  });

  test("backups taken in turn (delete_end_to_end)", async () => {
    const last = { segment: 60, base: 50, store: 1 } as const;
    const stores = await Stores.of(
      { segment: 10, store: 0 },
      { segment: 20, store: 1 },
      { segment: 30, base: 20, store: 1 },
      { segment: 40, base: 10, store: 0 },
      { segment: 50, store: 1 },
      last,
      { segment: 70, store: 0 },
    );
    await stores.del("before", "FIND_FULL", nameOf(last), "--confirm");
    assert.deepEqual(stores.listed, [[70], [50, 60]]);
    assert.deepEqual(stores.segments, range(50, 99));
    const { stdout } = await stores.run(backupList);
    assert.deepEqual(
      stdout
        .trimEnd()
        .split("\n")
        .slice(1)
        .map((line) => line.split(/ +/)[3]),
      ["b", "b", "default"],
    );
  });

  test("a permanent increment keeps its chain and WAL until FORCE (delete_before_permanent_delta)", async () => {
    const permanent = { segment: 12, base: 10, store: 1 } as const;
    const stores = await Stores.of(
      { segment: 10, store: 1 },
      permanent,
      { segment: 20, store: 0 },
      { segment: 30, store: 1 },
    );
    await stores.run(backupMark, nameOf(permanent));
    await stores.del("retain", "1", "--confirm");
    assert.deepEqual(stores.listed, [[], [10, 12, 30]]);
    assert.deepEqual(stores.segments, [10, 12, ...range(30, 99)]);
    await assert.rejects(stores.del("everything", "--confirm"), { name: "RefusedError" });
    assert.deepEqual(stores.listed, [[], [10, 12, 30]]);
    await stores.del("everything", "FORCE", "--confirm");
    const { stdout, log } = await stores.run(backupList);
    assert.doesNotMatch([stdout, ...log].join("\n"), /[0-9A-F]{24}/);
    assert.deepEqual([0, 1].flatMap((index) => stores.keys(index)).toSorted(), [
      "somebody/else",
      "wal_005/notes.txt",
    ]);
  });

  test("one increment takes only what depends on it (delete_target_delta_multist)", async () => {
    const placed = [
      { segment: 10, store: 0 },
      { segment: 20, base: 10, store: 0 },
      { segment: 30, base: 20, store: 0 },
      { segment: 40, base: 10, store: 0 },
      { segment: 50, store: 1 },
      { segment: 60, base: 50, store: 1 },
    ] as const;
    const stores = await Stores.of(...placed);
    await stores.del("target", nameOf({ segment: 20, base: 10 }), "--confirm");
    assert.deepEqual(stores.listed, [
      [10, 40],
      [50, 60],
    ]);
    await stores.del("target", "FIND_FULL", nameOf({ segment: 60, base: 50 }), "--confirm");
    assert.deepEqual(stores.listed, [[10, 40], []]);
    assert.deepEqual(stores.segments, range(1, 99));
  });

  test("leftovers in either of them, and one that comes back (delete_garbage_multist)", async () => {
    const lost = { segment: 20, store: 1 } as const;
    const stores = await Stores.of(
      { segment: 10, store: 0, isPermanent: true },
      lost,
      { segment: 25, store: 0 },
      { segment: 30, store: 0 },
      { segment: 40, store: 1 },
    );
    const sentinel = sentinelKey(nameOf(lost));
    const text = stores.text(1, sentinel);
    await stores.remove(1, sentinel);
    await stores.remove(0, sentinelKey(nameOf({ segment: 25 })));
    const marked = async (...words: readonly string[]): Promise<readonly string[]> => {
      const { log } = await stores.del("garbage", ...words);
      return log.filter((line) => line.startsWith("info: Object marked"));
    };
    assert.ok((await marked("ARCHIVES")).every(isWal));
    const backups = await marked("BACKUPS");
    assert.ok(backups.length > 0 && !backups.some(isWal));
    const both = await marked();
    assert.ok(both.some(isWal) && backups.every((line) => both.includes(line)));

    await stores.put(1, sentinel, text);
    await stores.del("target", nameOf(lost), "--confirm");
    assert.deepEqual(stores.folder(lost), [0, 0]);
    await stores.del("garbage", "--confirm");
    assert.deepEqual(stores.folder({ segment: 25 }), [0, 0]);
    assert.deepEqual(stores.listed, [[10, 30], [40]]);
    assert.deepEqual(stores.segments, [10, ...range(30, 99)]);
    const place = `--timeline=1 --lsn=0/${(99 * 16 * 1024 * 1024).toString(16)}`.split(" ");
    const { stdout } = await stores.run(walVerify, "integrity", ...place);
    assert.match(stdout, /integrity check status: (OK|WARNING)/);
    assert.doesNotMatch(stdout, /FAILURE/);
  });

  test("a segment that both have goes from both", async () => {
    const stores = await Stores.of({ segment: 30, store: 0 });
    const key = `wal_005/${segmentName(1, 5)}.zst`;
    for (const index of [0, 1]) await stores.put(index, key, "x");
    await stores.del("retain", "1", "--confirm");
    assert.deepEqual(stores.segments, range(30, 99));
  });
});
