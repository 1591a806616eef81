import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { scratchDirectory } from "../support/scratch-directory.ts";
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
