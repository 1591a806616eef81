/** Names of settings that people have already, of which no round trip makes use. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { leaveOut } from "../support/left-out.ts";
import { isRcloneAvailable } from "../support/rclone.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { runWalnut } from "../support/walnut.ts";

const HISTORY = "00000002.history";

/** Pushes a file by the program, with these settings only. */
async function push(directory: string, env: Readonly<Record<string, string>>) {
  const path = join(directory, HISTORY);
  writeFileSync(path, "1\t0/3000000\tno recovery target specified\n");
  const settings = { WALNUT_CACHE_DIR: join(directory, "cache"), ...env };
  return await runWalnut(["wal-push", path], { cwd: directory, env: settings });
}

const rcloneTitle = "RCLONE_CONFIG names the file with the remote";
if (isRcloneAvailable()) {
  test(rcloneTitle, async () => {
    using scratch = scratchDirectory();
    const store = join(scratch.path, "store");
    const config = join(scratch.path, "rclone.conf");
    mkdirSync(store);
    writeFileSync(config, "[elsewhere]\ntype = local\n");
    const { code, stderr } = await push(scratch.path, {
      WALG_RCLONE_PREFIX: `rclone:elsewhere:${store}`,
      RCLONE_CONFIG: config,
      WALG_COMPRESSION_METHOD: "zstd",
    });
    assert.equal(code, 0, stderr);
    assert.ok(existsSync(join(store, "wal_005", `${HISTORY}.zst`)));
  });
} else {
  leaveOut(rcloneTitle, "rclone is not installed");
}

test("AZURE_ENDPOINT_SUFFIX is the cloud that is asked", async () => {
  using scratch = scratchDirectory();
  const { code, stderr } = await push(scratch.path, {
    WALG_AZ_PREFIX: "azure://container/main",
    AZURE_STORAGE_ACCOUNT: "ours",
    AZURE_STORAGE_ACCESS_KEY: "a2V5",
    AZURE_ENDPOINT_SUFFIX: "own-cloud.invalid",
    WALNUT_WAL_TIMEOUT: "2s",
  });
  assert.notEqual(code, 0);
  assert.match(
    stderr,
    /azure:\/\/ours\.blob\.own-cloud\.invalid\/container.*(ENOTFOUND|EAI_AGAIN)/s,
  );
});
