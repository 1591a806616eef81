import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { listBackups } from "../../src/backup/catalogue.ts";
import { codecOf } from "../../src/codec/table.ts";
import { verify } from "../../src/commands/verify.ts";
import { readAll } from "../../src/io/bytes.ts";
import { filesMetadataKey, serverManifestKey } from "../../src/layout/keys.ts";
import { BackupManifestReader } from "../../src/postgres/backup-manifest.ts";
import { Crc32c } from "../../src/postgres/crc32c.ts";
import { type BackupWorld, startBackupWorld } from "../support/backup-world.ts";
import { ClusterHistory } from "../support/cluster-history.ts";
import { runCommand } from "../support/command-run.ts";
import { mergeInto } from "../support/merging.ts";
import { seededRandom } from "../support/random.ts";
import { assertRestoresLive } from "../support/restored-compare.ts";
import { restoreInto, snapshot } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const IS_LONG = process.env["WALNUT_LONG"] === "1";
const ROUNDS = IS_LONG ? 20 : 1;
const signal = AbortSignal.timeout(IS_LONG ? 7_200_000 : 600_000);
const increments = { maxSteps: 99, origin: "latest" } as const;

describe("merges of one server's chains", () => {
  const random = seededRandom();
  const all: { history?: ClusterHistory } = {};
  const history = (): ClusterHistory => {
    if (all.history === undefined) throw new Error("no history");
    return all.history;
  };
  const world = (): BackupWorld => history().world;
  const merge = async (backup: string, change: object = {}) =>
    await mergeInto(world().storage, backup, {
      spoolDirectory: join(world().cluster.directory, "spool"),
      ...change,
    });

  before(async () => {
    const started = await startBackupWorld({ major: 18, settings: { summarize_wal: "on" } });
    all.history = new ClusterHistory(started, random);
  });
  after(async () => await all.history?.[Symbol.asyncDispose]());

  /** What is below `place` after a restore into it. */
  const restored = async (place: string, backup: string) => {
    rmSync(place, { recursive: true });
    const { spec } = await world().sentinel(backup);
    const mappings = (spec?.tablespaces ?? []).map(({ name }) => {
      return { from: name, to: join(place, `space ${name}`) };
    });
    const tablespaces = { mappings };
    await restoreInto(world().storage, join(place, "data"), { backup, tablespaces });
    return snapshot(place);
  };
  const assertSameRestores = async (place: string, one: string, other: string): Promise<void> => {
    const [first, second] = [await restored(place, other), await restored(place, one)];
    const paths = new Set([...first.keys(), ...second.keys()]);
    const different = [...paths].filter((path) => first.get(path) !== second.get(path));
    assert.deepEqual(different, []);
  };

  test(`a merged chain restores byte for byte as the chain (seed ${random.seed})`, async () => {
    for (let round = 0; round < ROUNDS; round += 1) {
      using scratch = scratchDirectory();
      await history().change(IS_LONG ? 6 : 4);
      let backup = "";
      for (let taken = 0; taken < 3; taken += 1) {
        // Increments over the network: then PostgreSQL's manifest is made anew, too.
        const push = taken > 0 ? world().pushRemote.bind(world()) : world().push.bind(world());
        ({ name: backup } = await push({ increments, hasDatabaseNames: taken === 2 }));
        if (taken < 2) await history().change(IS_LONG ? 5 : 3);
      }
      const { name } = await merge(backup);
      await assertSameRestores(scratch.path, name, backup);
      await assertManifest(name, join(scratch.path, "data"));
      await assertSameNames(name, backup);
    }
  });

  test("the next increment is based on the merged backup, and merges again", async () => {
    const before = (await listBackups(world().storage, { hasMetadata: false, signal })).at(-1);
    assert.ok(before?.sentinel?.own?.mergedFrom !== undefined);
    await history().change(IS_LONG ? 3 : 1);
    const next = await world().push({ increments, hasDatabaseNames: false });
    assert.equal(next.baseName, before.name, world().logged.join("\n"));
    assert.equal((await world().sentinel(next.name)).base?.stepCount, 1);
    const { name } = await merge(next.name, { codec: codecOf("zstd"), thresholdBytes: 1024 ** 3 });
    if (!IS_LONG) return;
    using scratch = scratchDirectory();
    await assertSameRestores(scratch.path, name, next.name);
  });

  test("everything of merged backups passes a full verify", async () => {
    const { stdout, log } = await runCommand(verify, world().storage, ["--full", "--json"]);
    assert.match(stdout, /"status": ?"ok"/i, log.join("\n"));
  });

  // It restores as the chain, of which test/e2e/increment-histories.test.ts proves the same.
  const replay = IS_LONG ? test : () => {};
  void replay("a server replays a merged backup to the cluster's own pages", async () => {
    const newest = (await listBackups(world().storage, { hasMetadata: false, signal })).at(-1);
    assert.ok(newest?.sentinel?.own?.mergedFrom !== undefined);
    await history().change(4);
    await assertRestoresLive(world(), newest.name, 18);
  });

  /** PostgreSQL's manifest lists the restored files, with sizes and sums of their bytes. */
  async function assertManifest(backup: string, directory: string): Promise<void> {
    const stored = world().storage.get(serverManifestKey(backup), { signal });
    const text = (
      await readAll(codecOf("zstd").decompress(stored, { jobs: 1, signal }))
    ).toString();
    const reader = new BackupManifestReader();
    const listed = new Set<string>();
    for (const line of text.trimEnd().split("\n")) {
      const item = reader.takeLine(line);
      if (item === undefined) continue;
      if ("manifestSha256" in item) {
        const covered = text.slice(0, text.lastIndexOf('"Manifest-Checksum"'));
        assert.equal(item.manifestSha256, createHash("sha256").update(covered).digest("hex"));
        continue;
      }
      listed.add(item.path);
      // It is rewritten to where the tablespaces are.
      if (item.path === "tablespace_map") continue;
      const bytes = readFileSync(join(directory, item.path));
      assert.equal(item.sizeBytes, bytes.length, item.path);
      const sum = Buffer.alloc(4);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      sum.writeUInt32LE(Crc32c.finish(new Crc32c().update(Crc32c.start, view, 0, bytes.length)));
      assert.equal(item.checksum, sum.toString("hex"), item.path);
    }
    reader.finish();
    const { spec } = await world().sentinel(backup);
    const hasTablespaces = (spec?.tablespaces.length ?? 0) > 0;
    const files = [...snapshot(directory)].filter(([, what]) => what.startsWith("file "));
    const unlisted = files.map(([path]) => path).filter((path) => !listed.has(path));
    assert.deepEqual(unlisted, hasTablespaces ? [] : ["tablespace_map"]);
  }

  /** Partial restores find the tables. */
  async function assertSameNames(...backups: readonly string[]): Promise<void> {
    const [one, other] = await Promise.all(
      backups.map(async (backup) => {
        const bytes = world().storage.get(filesMetadataKey(backup), { signal });
        return (await readAll(bytes)).toString().split('"DatabasesByNames":')[1];
      }),
    );
    assert.ok(one?.includes('"postgres":{"oid":'));
    assert.equal(one, other);
  }
});
