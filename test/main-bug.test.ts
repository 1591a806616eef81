import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { TcpFaultProxy } from "./support/fault-proxy.ts";
import { scratchDirectory } from "./support/scratch-directory.ts";

const SEGMENT = "000000010000000000000001";

/** How a run ends that has a bug while it waits for a store that never answers. */
async function runWithBug(
  bug: "thrown" | "rejected",
  words: readonly string[],
): Promise<{ readonly code: number | null; readonly stderr: string }> {
  using directory = scratchDirectory();
  writeFileSync(join(directory.path, "00000002.history"), "1\t0/3000000\tx\n");
  await using store = await TcpFaultProxy.start({ host: "127.0.0.1", port: 1 });
  store.fault = { isSilent: true };
  const program = join(import.meta.dirname, "support", "bug-program.ts");
  const child = spawn(process.execPath, ["run", program, ...words], {
    cwd: directory.path,
    env: {
      PATH: process.env["PATH"],
      BUG: bug,
      WALG_S3_PREFIX: "s3://bucket/folder",
      AWS_ENDPOINT: `http://127.0.0.1:${store.port}`,
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: "id",
      AWS_SECRET_ACCESS_KEY: "secret",
      WALNUT_CACHE_DIR: join(directory.path, "cache"),
    },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  await once(child, "close");
  return { code: child.exitCode, stderr };
}

for (const bug of ["thrown", "rejected"] as const) {
  test(`a bug that is ${bug} where nobody waits is told, and never ends recovery`, async () => {
    const cases = [
      [["wal-fetch", SEGMENT, "pg_wal/RECOVERYXLOG"], 200],
      [["wal-push", "00000002.history"], 70],
      [["client", "no.sock", "wal-fetch", SEGMENT, "pg_wal/RECOVERYXLOG"], 200],
      [["client", "no.sock", "wal-push", SEGMENT], 1],
    ] as const;
    for (const [words, expected] of cases) {
      const { code, stderr } = await runWithBug(bug, words);
      assert.match(
        stderr,
        /^ERROR: a bug in walnut\nError: planted\n[^]*HINT: Please report this\.\n$/,
      );
      assert.equal(code, expected);
    }
  });
}
