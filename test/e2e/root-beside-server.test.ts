/** What root does in the server user's repository and cache must not keep that user out. */
import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { leaveOut } from "../support/left-out.ts";
import { recordWal, walFile } from "../support/real-wal.ts";
import { chownTree, serverUser } from "../support/server-user.ts";
import { runWalnut } from "../support/walnut.ts";

const user = serverUser();
if (user === undefined) leaveOut("root beside a server", "we are not root");
else {
  test("after root's commands the server user archives, mirrors and reads as before", async () => {
    const wal = await recordWal({ segmentCount: 3 });
    const directory = await mkdtemp(join(tmpdir(), "walnut-root-beside-"));
    try {
      await chmod(directory, 0o755);
      const places = ["data/pg_wal", "store", "mirror", "home"];
      for (const place of places) await mkdir(join(directory, place), { recursive: true });
      for (const name of wal.segments) {
        await writeFile(join(directory, "data/pg_wal", name), walFile(wal, name));
      }
      for (const place of ["data", ...places]) await chownTree(join(directory, place), user);
      const run = async (words: readonly string[], who: typeof user | undefined) => {
        const { code, stderr } = await runWalnut(words, {
          cwd: join(directory, "data"),
          user: who,
          env: {
            WALG_FILE_PREFIX: join(directory, "store"),
            WALNUT_MIRROR: JSON.stringify({ far: { WALG_FILE_PREFIX: join(directory, "mirror") } }),
            WALNUT_MIRROR_QUEUE_DIRECTORY: join(directory, "home", "queue"),
            WALNUT_CACHE_DIR: join(directory, "home", "cache"),
          },
        });
        assert.equal(code, 0, `${words.join(" ")}: ${stderr}`);
      };
      const [first = "", second = ""] = wal.segments;
      await run(["wal-push", `pg_wal/${first}`], undefined);
      await run(["wal-push", `pg_wal/${second}`], user);
      await run(["wal-fetch", first, join(directory, "home", "fetched")], user);
      for (const place of ["store", "mirror", "home"]) {
        for (const name of await readdir(join(directory, place), { recursive: true })) {
          const { uid, gid } = await stat(join(directory, place, name));
          assert.deepEqual({ uid, gid }, { uid: user.uid, gid: user.gid }, name);
        }
      }
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
}
