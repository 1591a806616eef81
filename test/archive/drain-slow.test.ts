import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { queueIn } from "../../src/archive/archive-status.ts";
import { askDrainer } from "../../src/archive/drain-client.ts";
import { drain } from "../../src/archive/drainer.ts";
import { spoolDirectory } from "../../src/archive/spool-directory.ts";
import { OperationError } from "../../src/errors.ts";
import { untilAborted } from "../../src/io/abort.ts";
import type { ByteSource } from "../../src/io/bytes.ts";
import type { PutOptions } from "../../src/storage/storage.ts";
import { DRAIN_DEFAULTS } from "../support/drain-defaults.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { until } from "../support/until.ts";

const FILES = 30;
/** So many files at one time end in their time; of more, none does. */
const LINE_WIDTH = 2;

class SlowLine extends MemoryStorage {
  inVain = 0;
  #underWay = 0;

  override async put(key: string, body: ByteSource, options: PutOptions): Promise<void> {
    this.#underWay += 1;
    try {
      // Those that begin at the same moment are all there.
      for (let turn = 0; turn < 50; turn += 1)
        await new Promise((resolve) => setImmediate(resolve));
      if (this.#underWay > LINE_WIDTH) await untilAborted(new Promise(() => {}), options.signal);
      await super.put(key, body, options);
    } catch (error) {
      this.inVain += 1;
      throw error;
    } finally {
      this.#underWay -= 1;
    }
  }
}

test("on a line that is too slow for all at one time few files are sent in vain", async () => {
  const directory = await mkdtemp(join(tmpdir(), "walnut-drain-slow-"));
  try {
    const queue = queueIn(join(directory, "data"));
    await mkdir(queue.statusDirectory, { recursive: true });
    // They need no header: a backup's label is archived in the same way.
    const names = Array.from({ length: FILES }, (_, number) => {
      return `0000000100000000000000${number + 10}.00000028.backup`;
    });
    for (const name of names) {
      await writeFile(join(queue.walDirectory, name), name);
      await writeFile(join(queue.statusDirectory, `${name}.ready`), "");
    }
    const store = new SlowLine();
    const spool = await spoolDirectory({ ...queue, cacheDirectory: directory });
    const signal = AbortSignal.timeout(60_000);
    const ended = drain({
      queue,
      spool,
      openStorage: async () => store,
      ...DRAIN_DEFAULTS,
      concurrency: 8,
      aheadMax: 100,
      cacheDirectory: directory,
      timeoutMs: 300,
      signal,
    });
    // As the archiver does, which calls again after a failure.
    for (const name of names) {
      const request = { kind: "push", name, settings: "s" } as const;
      const isStored = async (): Promise<boolean> => {
        try {
          const answer = await askDrainer(spool.socket, request, { timeoutMs: 20_000, signal });
          return answer.kind === "stored";
        } catch (error) {
          if (error instanceof OperationError) return false;
          throw error;
        }
      };
      await until(`${name} is stored`, isStored);
    }
    await ended;
    // Eight, four, three when it dares again; some sooner or later than others.
    assert.ok(store.inVain <= FILES, `${store.inVain} in vain`);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
