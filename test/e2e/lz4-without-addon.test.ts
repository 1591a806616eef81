import { test } from "node:test";
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sampleContent } from "../support/content.ts";
import { runWalnut } from "../support/walnut.ts";

test("lz4 works where the executable can't unpack its addon", async (t) => {
  const scratch = await mkdtemp(join(tmpdir(), "walnut-lz4-"));
  t.after(() => rm(scratch, { recursive: true, force: true }));
  const repository = join(scratch, "repository");
  await mkdir(repository);
  const file = join(scratch, "a-file");
  const content = sampleContent(2_000_000);
  await writeFile(file, content);

  const env = {
    TMPDIR: join(scratch, "missing"),
    WALG_FILE_PREFIX: repository,
    WALG_COMPRESSION_METHOD: "lz4",
    WALNUT_CACHE_DIR: join(scratch, "cache"),
  };
  const pushed = await runWalnut(["wal-push", file], { env, cwd: scratch });
  assert.equal(pushed.code, 0, pushed.stderr);
  assert.deepEqual(await readdir(join(repository, "wal_005")), ["a-file.lz4"]);

  const target = join(scratch, "fetched");
  const fetched = await runWalnut(["wal-fetch", "a-file", target], { env, cwd: scratch });
  assert.equal(fetched.code, 0, fetched.stderr);
  assert.equal((await readFile(target)).equals(content), true);
});
