/**
 * usage: mirror-program.ts PRIMARY MIRROR QUEUE ROUND
 *
 * Puts, replaces and deletes objects in a mirrored directory store until it is killed. Prints each
 * key of a new object once it is acknowledged.
 */
import { systemClock } from "../../src/io/clock.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import { patternSource } from "./bodies.ts";
import { mirroredStorage } from "./mirror.ts";

const [primary = "", mirror = "", directory = "", round = ""] = process.argv.slice(2);
const { signal } = new AbortController();
const storage = mirroredStorage({
  primary: new DirectoryStorage(primary, systemClock),
  mirror: new DirectoryStorage(mirror, systemClock),
  directory,
});
for (let count = 0; ; count++) {
  const key = `round${round}/${count}`;
  await storage.put(key, patternSource(3000 + count), { signal, ifAbsent: true });
  process.stdout.write(`${key}\n`);
  await storage.put(`replaced/${count % 3}`, patternSource(2000 + count), { signal });
  await storage.delete([`replaced/${(count + 1) % 3}`], { signal });
}
