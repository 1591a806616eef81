import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fsyncDirectory } from "../io/durable.ts";
import { ifSystemAllows } from "../io/system-error.ts";

/** As many segments can be given up while the disk is full; PostgreSQL removes their files then. */
const SPARE_COUNT = 32;
/** Of one file: a block of most file systems. */
const SPARE_BYTES = 4096;

/** Where they are, beside the directory of gap records: nothing else is looked for there. */
function sparesOf(gaps: string): string {
  return join(dirname(gaps), "spares");
}

/**
 * Makes files that have their blocks before they are needed: gap records for when the disk is full,
 * which is when pg_wal has to be emptied. Never rejects: what can't be made is made another time.
 */
export async function keepSpares(gaps: string): Promise<void> {
  const directory = sparesOf(gaps);
  await ifSystemAllows(async () => {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const present = new Set(await readdir(directory));
    for (let number = 1; number <= SPARE_COUNT; number += 1) {
      const name = `spare-${number}`;
      if (!present.has(name)) await makeSpare(join(directory, name));
    }
  });
}

async function makeSpare(path: string): Promise<void> {
  try {
    await using handle = await open(path, "wx", 0o600);
    await handle.writeFile(Buffer.alloc(SPARE_BYTES, " "));
    // Only now are they surely its blocks.
    await handle.sync();
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
}

/**
 * Puts a short text durably under a name in `gaps`, in the place of a spare: neither a block nor an
 * inode is needed for it, but on file systems that never write in place. False if that could not be
 * done; rejects with LocalFileError where the name may not last.
 */
export async function writeIntoSpare(
  gaps: string,
  { name, text }: { readonly name: string; readonly text: string },
): Promise<boolean> {
  const directory = sparesOf(gaps);
  const names = (await ifSystemAllows(() => readdir(directory))) ?? [];
  for (const one of names) {
    const spare = join(directory, one);
    const isDone = await ifSystemAllows(async () => {
      await rewrite(spare, Buffer.from(text));
      await rename(spare, join(gaps, name));
      return true;
    });
    if (isDone !== true) continue;
    await fsyncDirectory(gaps);
    return true;
  }
  return false;
}

async function rewrite(path: string, bytes: Uint8Array): Promise<void> {
  await using handle = await open(path, "r+");
  await handle.write(bytes, 0, bytes.length, 0);
  await handle.truncate(bytes.length);
  await handle.sync();
}
