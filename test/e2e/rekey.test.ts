/** A repository of WAL-G's gets another key, with the real program, and is killed on the way. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { seededRandom } from "../support/random.ts";
import { unpackWalgFixture } from "../support/walg-fixture.ts";
import { runWalnut } from "../support/walnut.ts";

const KILLS = process.env["WALNUT_LONG"] === "1" ? 40 : 3;
/** About as long as a whole run takes. */
const LONGEST_RUN_MS = 900;

test("rekey: shown first, killed at any moment, whole at the end", async () => {
  await using fixture = await unpackWalgFixture("sodium");
  const random = seededRandom();
  const place = {
    WALG_FILE_PREFIX: fixture.repository,
    WALNUT_CACHE_DIR: join(fixture.directory, "cache"),
  };
  const path = (name: string) => join(fixture.directory, name);
  writeFileSync(path("old.hex"), fixture.env["WALG_LIBSODIUM_KEY"] ?? "");
  writeFileSync(path("new.hex"), "5a".repeat(32));
  const newOnly = {
    ...place,
    WALG_LIBSODIUM_KEY_PATH: path("new.hex"),
    WALG_LIBSODIUM_KEY_TRANSFORM: "hex",
  };
  const both = { ...newOnly, WALNUT_LIBSODIUM_OLD_KEY_PATHS: path("old.hex") };
  const run = async (
    words: readonly string[],
    env: Readonly<Record<string, string>>,
    killAfterMs?: number,
  ) =>
    await runWalnut(words, {
      cwd: fixture.directory,
      env,
      ...(killAfterMs === undefined ? {} : { killAfterMs }),
    });
  /** What a killed write leaves is invisible to walnut, and `delete garbage` takes it. */
  const filesUnder = (folder: string) =>
    readdirSync(join(fixture.repository, folder), { withFileTypes: true, recursive: true })
      .filter((entry) => entry.isFile() && !entry.name.includes(".tmp."))
      .map(({ name }) => name);
  const fetchAll = async (env: Readonly<Record<string, string>>) => {
    const names = filesUnder("wal_005").map((name) => name.replace(/\.lz4$/, ""));
    const contents = new Map<string, Buffer>();
    for (const name of names.toSorted()) {
      const result = await run(["wal-fetch", name, path("fetched")], env);
      assert.equal(result.code, 0, result.stderr);
      contents.set(name, readFileSync(path("fetched")));
    }
    return contents;
  };

  const before = await fetchAll({ ...place, ...fixture.env });
  const plan = await run(["rekey"], both);
  assert.equal(plan.code, 0, plan.stderr);
  const [, count = "0"] = /^(\d+) objects of \d+ bytes would get the key/.exec(plan.stdout) ?? [];
  assert.ok(Number(count) >= before.size + 6, plan.stdout);
  assert.match(plan.stdout, /; 0 had it before\.\nNothing was changed/);
  const blind = await run(["rekey"], newOnly);
  assert.equal(blind.code, 22, blind.stderr);
  assert.match(blind.stderr, /wrong key \(the object does not name its key, have /);

  for (let kill = 0; kill < KILLS; kill++) {
    await run(["rekey", "--confirm"], both, 50 + random.next() * LONGEST_RUN_MS);
  }
  const done = await run(["rekey", "--confirm"], both);
  assert.equal(done.code, 0, `seed ${random.seed}: ${done.stderr}`);
  assert.match(done.stdout, /No object needs another key any more/);
  const again = await run(["rekey", "--confirm"], both);
  assert.match(again.stdout, new RegExp(`^0 objects .*; ${count} had it before`));
  assert.deepEqual(filesUnder("walnut_005"), ["encryption.json"]);

  assert.deepEqual(await fetchAll(newOnly), before);
  const target = path("restored");
  const fetched = await run(["backup-fetch", target, "LATEST"], newOnly);
  assert.equal(fetched.code, 0, fetched.stderr);
  const old = await run(["backup-fetch", path("refused"), "LATEST"], { ...place, ...fixture.env });
  assert.equal(old.code, 25, old.stderr);
  assert.match(old.stderr, /wrong key \(id [0-9a-f]{8}, have [0-9a-f]{8}\)/);
});
