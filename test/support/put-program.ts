/**
 * usage: put-program.ts DIRECTORY KEY BYTES [endless]
 *
 * Puts one object into a directory store, so that a test can limit, trace or kill the process.
 * Prints "began" when the body is first read, and "done" or the error's name and message at its
 * end.
 */
import { systemClock } from "../../src/io/clock.ts";
import { mapSource } from "../../src/io/bytes.ts";
import type { ByteStream } from "../../src/io/bytes.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import { patternSource } from "./bodies.ts";

const [root = "", key = "", sizeBytes = "0", mode = ""] = process.argv.slice(2);
const { signal } = new AbortController();
const body = mapSource(patternSource(Number(sizeBytes)), announce);

async function* announce(stream: ByteStream): ByteStream {
  process.stdout.write("began\n");
  yield* stream;
  // A timer keeps the process alive until it is killed.
  if (mode === "endless") await new Promise<never>(() => setInterval(() => {}, 60_000));
}

try {
  await new DirectoryStorage(root, systemClock).put(key, body, { signal, ifAbsent: true });
  process.stdout.write("done\n");
} catch (error) {
  process.stdout.write(`${String(error)}\n`);
}
