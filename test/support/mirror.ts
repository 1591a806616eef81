import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readAll } from "../../src/io/bytes.ts";
import { type Clock, systemClock } from "../../src/io/clock.ts";
import { silentLog } from "../../src/io/log.ts";
import { MirrorQueue } from "../../src/storage/mirror-queue.ts";
import { MirroredStorage, type MirroredOptions } from "../../src/storage/mirrored.ts";
import type { Storage } from "../../src/storage/storage.ts";

export interface MirroredStores extends Partial<MirroredOptions> {
  readonly primary: Storage;
  readonly mirror: Storage;
  /** Of the queue. */
  readonly directory: string;
  readonly notesMax?: number;
}

/** A primary and one mirror; policy "primary" unless told. */
export function mirroredStorage(stores: MirroredStores): MirroredStorage {
  const { primary, mirror, clock = systemClock } = stores;
  const queue = mirrorQueue(stores.directory, { ...stores, clock });
  return new MirroredStorage(
    { storage: primary, reading: primary },
    [{ title: "second", storage: mirror, queue }],
    {
      policy: stores.policy ?? "primary",
      isReader: stores.isReader ?? false,
      clock,
      log: stores.log ?? silentLog,
    },
  );
}

export function mirrorQueue(
  directory: string,
  { notesMax = 1000, clock = systemClock }: { notesMax?: number; clock?: Clock } = {},
): MirrorQueue {
  return new MirrorQueue(directory, { notesMax, clock });
}

/** Makes the notes that this process has begun those of one that was killed. */
export async function killWriters(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (!name.endsWith(".begun")) continue;
    const path = join(directory, name);
    const text = await readFile(path, "utf8");
    await writeFile(path, text.replace(/"process":("[^"]*"|null)/, '"process":null'));
  }
}

/** All objects with their content, as "key=hex". */
export async function contentOf(storage: Storage): Promise<readonly string[]> {
  const { signal } = new AbortController();
  const all: string[] = [];
  for await (const { key } of storage.list("", { signal })) {
    all.push(`${key}=${(await readAll(storage.get(key, { signal }))).toString("hex")}`);
  }
  return all;
}
