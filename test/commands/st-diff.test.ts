import assert from "node:assert/strict";
import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { systemClock } from "../../src/io/clock.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import { seededRandom } from "../support/random.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { fillRepository } from "../support/synthetic-repository.ts";
import { runWalnut } from "../support/walnut.ts";

/** Two directories, one the mirror of the other, and the tools on them. */
function bench() {
  const scratch = scratchDirectory();
  const [primary, mirror, queue] = ["primary", "mirror", "queue"].map((name) =>
    join(scratch.path, name),
  );
  if (primary === undefined || mirror === undefined || queue === undefined) throw new Error("?");
  for (const path of [primary, mirror]) mkdirSync(path);
  const env = {
    WALG_FILE_PREFIX: primary,
    WALNUT_MIRROR: JSON.stringify({ second: { WALG_FILE_PREFIX: mirror } }),
    WALNUT_MIRROR_QUEUE_DIRECTORY: queue,
  };
  writeFileSync(join(scratch.path, "file"), "content of the file\n".repeat(100));
  return {
    primary,
    mirror,
    queue,
    run: (...words: readonly string[]) => runWalnut(words, { env, cwd: scratch.path }),
    st: (...words: readonly string[]) => runWalnut(["st", ...words], { env, cwd: scratch.path }),
    put: (root: string, key: string, content: string) => {
      mkdirSync(dirname(join(root, key)), { recursive: true });
      writeFileSync(join(root, key), content);
    },
    [Symbol.dispose]: () => scratch[Symbol.dispose](),
  };
}

function flip(path: string): void {
  const bytes = readFileSync(path);
  bytes.writeUInt8(bytes.readUInt8(bytes.length - 2) ^ 1, bytes.length - 2);
  writeFileSync(path, bytes);
}

test("st diff proves both equal, also after the mirror was away", async () => {
  using world = bench();
  const { st, mirror, queue } = world;
  const put = await st("put", "file", "a/one");
  assert.equal(put.code, 0, put.stderr);
  assert.equal((await st("diff", "--content")).code, 0);
  assert.deepEqual(readdirSync(join(mirror, "a")), ["one.zst"]);

  renameSync(mirror, `${mirror}.away`);
  assert.equal((await st("put", "file", "a/two")).code, 0);
  renameSync(`${mirror}.away`, mirror);
  const due = await st("diff");
  assert.notEqual(due.code, 0);
  assert.match(due.stdout, /second +due +\d+ +- +a\/two\.zst/);
  assert.match(due.stderr, /0 objects differ, 1 are due/);

  assert.equal((await st("sync")).code, 0);
  assert.equal((await st("diff", "--content")).code, 0);
  assert.deepEqual(readdirSync(join(mirror, "a")).toSorted(), ["one.zst", "two.zst"]);
  const directories = readdirSync(queue);
  assert.equal(directories.length, 1);
  const left = readdirSync(join(queue, directories[0] ?? ""));
  assert.deepEqual(
    left.filter((name) => /\.(begun|due|unsure)/.test(name)),
    [],
  );
});

test("st sync puts whole objects in the place of damaged ones, and nothing else", async () => {
  using world = bench();
  const { st, put, primary, mirror } = world;
  for (const name of ["one", "two", "three"]) {
    assert.equal((await st("put", "file", name)).code, 0);
  }
  const whole = readFileSync(join(primary, "one.zst"));
  flip(join(primary, "one.zst"));
  flip(join(mirror, "two.zst"));
  flip(join(primary, "three.zst"));
  rmSync(join(mirror, "three.zst"));
  put(primary, "plain", "one");
  put(mirror, "plain", "two");
  put(mirror, "only", "here");

  const diff = await st("diff", "--content");
  const found = diff.stdout.split("\n").flatMap((line) => {
    const [, what, , , name] = line.split(/ +/);
    return name === undefined || name === "name" ? [] : [`${name} ${what}`];
  });
  assert.deepEqual(found, [
    "one.zst other-content",
    "only surplus",
    "plain other-content",
    "three.zst missing",
    "two.zst other-content",
  ]);

  const sync = await st("sync", "--content");
  assert.notEqual(sync.code, 0);
  assert.match(sync.stderr, /3 objects still differ/);
  assert.match(sync.stdout, /one\.zst +damaged in the primary: replaced there/);
  assert.match(sync.stdout, /two\.zst +damaged in the mirror: replaced there/);
  for (const root of [primary, mirror]) {
    assert.deepEqual(readFileSync(join(root, "one.zst")), whole);
    assert.deepEqual(readFileSync(join(root, "two.zst")), whole);
  }
  assert.equal(readFileSync(join(primary, "plain"), "utf8"), "one");
  assert.equal(readFileSync(join(mirror, "plain"), "utf8"), "two");
  assert.deepEqual(readdirSync(mirror).toSorted(), ["one.zst", "only", "plain", "two.zst"]);

  await st("sync", "--restore");
  assert.equal(readFileSync(join(primary, "only"), "utf8"), "here");
});

test("without a mirror there is nothing to compare", async () => {
  using world = bench();
  const result = await runWalnut(["st", "diff"], { env: { WALG_FILE_PREFIX: world.primary } });
  assert.notEqual(result.code, 0);
  assert.match(result.stderr, /there is no mirror/);
});

test("verify names the commands that bring the mirror's good copies into the primary", async () => {
  using world = bench();
  const { primary, mirror, run } = world;
  await fillRepository(new DirectoryStorage(primary, systemClock), seededRandom());
  cpSync(primary, mirror, { recursive: true });
  const names = readdirSync(primary, { recursive: true, encoding: "utf8" });
  const find = (pattern: RegExp) => names.find((name) => pattern.test(name)) ?? "none";
  const keys = [/part_002\.tar\.zst$/, /^wal_005\/[0-9A-F]{24}$/, /^wal_005\/.*23(\.\w+)?$/].map(
    find,
  );
  const [told = "", untold = "", lost = ""] = keys;
  const whole = new Map(keys.map((key) => [key, readFileSync(join(primary, key))]));
  flip(join(primary, told));
  // Without compression: nothing in it tells `st sync` which of the two is right.
  flip(join(primary, untold));
  rmSync(join(primary, lost));

  const { code, stdout, stderr } = await run("verify", "--full");
  assert.notEqual(code, 0);
  assert.match(stderr, /A mirror has a good copy of everything that is wrong/);
  const lines = stdout.split("\n").filter((line) => line.includes("mirror second has a good copy"));
  const commands = new Set(lines.map((line) => /`walnut (.*)`/.exec(line)?.[1] ?? line));
  assert.deepEqual(
    [...commands].toSorted(),
    [
      `st get -t second --no-decrypt --no-decompress ${untold} good-copy && ` +
        `walnut st put --force --no-encrypt --no-compress good-copy ${untold}`,
      "st sync --content",
      "st sync --restore",
    ],
    stdout,
  );
  for (const line of [...commands].flatMap((one) => one.split(" && walnut "))) {
    // A sync leaves what it was not told to do.
    await run(...line.split(" "));
  }
  for (const key of keys) {
    assert.deepEqual(readFileSync(join(primary, key)), readFileSync(join(mirror, key)));
    assert.deepEqual(readFileSync(join(primary, key)), whole.get(key));
  }
});
