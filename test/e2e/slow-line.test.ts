/** WAL over a line on which one file takes longer than WALNUT_WAL_TIMEOUT. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { FaultProxy } from "../support/fault-proxy.ts";
import { leaveOut } from "../support/left-out.ts";
import { availableS3Servers, startS3Server } from "../support/s3-server.ts";
import { writeWal } from "../support/wal-writer.ts";
import { runWalnut } from "../support/walnut.ts";

const MIB = 1024 * 1024;
/** Much more than the system buffers, 33 MiB at most: that counts as sent before it is. */
const SEGMENT_BYTES = 64 * MIB;
const TIMEOUT_MS = 5000;
/** A file takes 1.4 times its time. */
const BYTES_PER_SECOND = (SEGMENT_BYTES * 1000) / (1.4 * TIMEOUT_MS);

const [kind] = await availableS3Servers();
if (kind === undefined) leaveOut("a slow line", "no S3 server on this machine");
else {
  test("segments that take longer than their time get through, and come back", async () => {
    await using line = await slowLine({});
    const [first, second] = line.names;
    // The second one is pushed by a drainer meanwhile.
    for (const name of [first, second]) {
      const { code, stderr } = await line.run(["wal-push", `pg_wal/${name}`]);
      assert.equal(code, 0, stderr);
      await line.archived(name);
    }
    const { code, stderr } = await line.run(["wal-fetch", first, "pg_wal/RECOVERYXLOG"]);
    assert.equal(code, 0, stderr);
    const fetched = await readFile(join(line.dataDirectory, "pg_wal", "RECOVERYXLOG"));
    assert.ok(fetched.equals(line.bytesOf(first)));
  });

  test("so does one in parts", async () => {
    await using line = await slowLine({
      S3_MAX_PART_SIZE: `${5 * MIB}`,
      WALG_UPLOAD_CONCURRENCY: "1",
    });
    const { code, stderr } = await line.run(["wal-push", `pg_wal/${line.names[0]}`]);
    assert.equal(code, 0, stderr);
  });
}

/** A server's data directory with two segments that wait, and a store behind a slow line. */
async function slowLine(settings: Readonly<Record<string, string>>) {
  await using stack = new AsyncDisposableStack();
  const server = stack.use(await startS3Server(kind ?? "moto"));
  const proxy = stack.use(await FaultProxy.start(server.endpoint));
  const directory = await mkdtemp(join(tmpdir(), "walnut-slow-line-"));
  // A drainer ends when its socket is gone.
  stack.defer(() => rm(directory, { recursive: true, force: true }));
  const dataDirectory = join(directory, "data");
  const statusDirectory = join(dataDirectory, "pg_wal", "archive_status");
  await mkdir(statusDirectory, { recursive: true });
  const data = randomBytes(2 * SEGMENT_BYTES - MIB);
  const { segments } = writeWal({
    segmentBytes: SEGMENT_BYTES,
    records: Array.from({ length: data.length / MIB }, (_, number) => ({
      dataBytes: MIB,
      data: data.subarray(number * MIB, (number + 1) * MIB),
    })),
  });
  for (const { name, bytes } of segments) {
    await writeFile(join(dataDirectory, "pg_wal", name), bytes);
    await writeFile(join(statusDirectory, `${name}.ready`), "");
  }
  proxy.rule = () => ({
    requestBytesPerSecond: BYTES_PER_SECOND,
    bytesPerSecond: BYTES_PER_SECOND,
  });
  const held = stack.move();
  const [first, second] = segments;
  assert.ok(first !== undefined && second !== undefined);
  return {
    dataDirectory,
    names: [first.name, second.name] as const,
    bytesOf: (name: string) => Buffer.from(segments.find((one) => one.name === name)?.bytes ?? []),
    archived: (name: string) =>
      rename(join(statusDirectory, `${name}.ready`), join(statusDirectory, `${name}.done`)),
    run: (words: readonly string[]) =>
      runWalnut(words, {
        cwd: dataDirectory,
        env: {
          WALG_S3_PREFIX: `s3://${server.bucket}/main`,
          AWS_ENDPOINT: proxy.endpoint,
          AWS_S3_FORCE_PATH_STYLE: "true",
          AWS_REGION: "us-east-1",
          AWS_ACCESS_KEY_ID: server.accessKeyId,
          AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
          WALG_COMPRESSION_METHOD: "none",
          WALNUT_CACHE_DIR: join(directory, "cache"),
          WALNUT_WAL_TIMEOUT: `${TIMEOUT_MS}ms`,
          ...settings,
        },
        killAfterMs: 120_000,
      }),
    [Symbol.asyncDispose]: () => held[Symbol.asyncDispose](),
  };
}
