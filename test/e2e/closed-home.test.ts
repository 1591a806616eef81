import assert from "node:assert/strict";
import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { serverUser } from "../support/server-user.ts";
import { runWalnut } from "../support/walnut.ts";

test("a home that is not ours to look into, as after sudo, is no obstacle", async () => {
  using scratch = scratchDirectory();
  const home = join(scratch.path, "home");
  mkdirSync(home);
  chmodSync(scratch.path, 0o777);
  chmodSync(home, 0);
  const env = { HOME: home, PGHOST: join(scratch.path, "nobody"), PGUSER: "postgres" };
  const settings = { WALG_FILE_PREFIX: scratch.path, WALNUT_CACHE_DIR: scratch.path };
  const result = await runWalnut(["backup-push", "/nowhere"], {
    user: serverUser(),
    env: { ...env, ...settings },
  });
  chmodSync(home, 0o700);
  assert.match(result.stderr, /can't connect to PostgreSQL at .*nobody/);
});
