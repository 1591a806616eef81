import assert from "node:assert/strict";
import { test } from "node:test";
import { StorageError } from "../../src/errors.ts";
import { readAll } from "../../src/io/bytes.ts";
import { groupOfKey, isRewrittenKey, PROBE_FOLDER } from "../../src/layout/backup-group.ts";
import { openStorage } from "../../src/storage/open.ts";
import type { StorageUse } from "../../src/storage/failover-open.ts";
import { HEALTH_RULES } from "../support/failover-world.ts";
import { FaultProxy } from "../support/fault-proxy.ts";
import { s3Config } from "../support/s3-config.ts";
import { S3Emulation } from "../support/s3-emulation.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { text, textOf } from "./contract-lists.ts";

const signal = AbortSignal.timeout(120_000);

test("a store that takes requests and never answers holds nothing up", async () => {
  using scratch = scratchDirectory();
  await using server = await S3Emulation.start();
  await using proxy = await FaultProxy.start(server.endpoint);
  const open = async (use: StorageUse) =>
    await openStorage(s3Config(server, { endpoint: proxy.endpoint }), {
      signal,
      requestTimeoutMs: 60_000,
      uploadConcurrency: 4,
      folder: "cluster",
      failover: {
        config: {
          stores: [{ name: "b", config: { kind: "directory", path: scratch.path } }],
          health: { ...HEALTH_RULES, checkTimeoutMs: 1000 },
        },
        use,
        keys: { groupOf: groupOfKey, isRewritten: isRewrittenKey },
        probeFolder: PROBE_FOLDER,
      },
    });
  {
    const options = { signal, requestTimeoutMs: 60_000, uploadConcurrency: 4, folder: "cluster" };
    await using alone = await openStorage(s3Config(server), options);
    await alone.put("wal_005/first", text("at home"), { signal });
  }
  proxy.rule = () => ({ hang: true });
  await using storage = await open("archive");
  assert.match(storage.name, /^s3:.*\/cluster or file:.*\/cluster$/);
  await storage.put("wal_005/second", text("elsewhere"), { signal, ifAbsent: true });
  // It could be that only puts are not answered.
  await storage.put("wal_005/third", text("elsewhere"), { signal, ifAbsent: true });
  const asked = proxy.requests.length;
  await storage.put("wal_005/fourth", text("elsewhere"), { signal, ifAbsent: true });
  assert.equal(proxy.requests.length, asked);

  await using all = await open("all");
  await assert.rejects(readAll(all.get("wal_005/first", { signal })), StorageError);
  assert.equal(await textOf(all, "wal_005/second"), "elsewhere");
});
