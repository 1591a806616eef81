/** The whole job on encrypted repositories, with the real program and a real server. */
import assert from "node:assert/strict";
import { chown, readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import * as openpgp from "openpgp";
import { type Cluster, initCluster, restoreCluster } from "../support/postgres.ts";
import { install } from "../support/repository.ts";

const MAJOR = 18;
const SECRET = "a row that nobody else may read";

interface Keys {
  /** On the database's host. */
  readonly write: Readonly<Record<string, string>>;
  /** Where it is restored. */
  readonly read: Readonly<Record<string, string>>;
  /** Of somebody else, of the same kind. */
  readonly other: Readonly<Record<string, string>>;
}

async function keyFile(cluster: Cluster, name: string, text: string): Promise<string> {
  const path = join(cluster.directory, name);
  await writeFile(path, text, { mode: 0o600 });
  if (cluster.user !== undefined) await chown(path, cluster.user.uid, cluster.user.gid);
  return path;
}

async function libsodiumKeys(cluster: Cluster): Promise<Keys> {
  const settings = async (name: string, text: string) => ({
    WALG_LIBSODIUM_KEY_PATH: await keyFile(cluster, name, text),
    WALG_LIBSODIUM_KEY_TRANSFORM: "hex",
  });
  const own = await settings("key.hex", `${"0123456789abcdef".repeat(4)}\n`);
  return { write: own, read: own, other: await settings("other.hex", "ab".repeat(32)) };
}

async function openPgpKeys(cluster: Cluster): Promise<Keys> {
  const [own, other] = await Promise.all(
    ["own", "other"].map((name) =>
      openpgp.generateKey({ type: "rsa", rsaBits: 2048, userIDs: [{ name }] }),
    ),
  );
  assert.ok(own !== undefined && other !== undefined);
  const settings = async (name: string, text: string) => ({
    WALG_PGP_KEY_PATH: await keyFile(cluster, name, text),
  });
  return {
    write: await settings("public.asc", own.publicKey),
    read: await settings("private.asc", own.privateKey),
    other: await settings("other.asc", other.privateKey),
  };
}

async function filesBelow(directory: string): Promise<readonly string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((one) => join(one.parentPath, one.name))
    .toSorted();
}

const kinds = [
  ["libsodium", libsodiumKeys],
  ["OpenPGP, with only the public key where the database is", openPgpKeys],
] as const;

for (const [kind, makeKeys] of kinds) {
  test(`round trip with ${kind}`, async () => {
    await using cluster = await initCluster({
      major: MAJOR,
      segmentMiB: 1,
      settings: { archive_mode: "on" },
    });
    const keys = await makeKeys(cluster);
    const repository = await cluster.makeDirectory("repository");
    const place = { WALG_FILE_PREFIX: repository, WALG_COMPRESSION_METHOD: "none" };
    const writer = await install(cluster, { ...place, ...keys.write });
    await cluster.configure({ archive_command: writer.archiveCommand });
    await cluster.start();
    await cluster.query(
      `create table t as select '${SECRET}' as body from generate_series(1, 100)`,
    );
    await writer.mustRun("backup-push", cluster.dataDirectory);
    await cluster.query(`insert into t select '${SECRET}' from generate_series(1, 100)`);
    await cluster.query("create table witness_of_names ()");
    await cluster.switchWal();
    await cluster.waitForArchiver();
    const contents = await cluster.contents();
    assert.equal(await cluster.value("select failed_count from pg_stat_archiver"), "0");

    for (const path of await filesBelow(repository)) {
      const bytes = await readFile(path);
      assert.ok(!bytes.includes(SECRET), path);
      const isDocument = path.endsWith(".json");
      if (!isDocument) assert.ok(!bytes.includes("pg_control"), `${path} names files`);
    }
    await checkRefusals(cluster, { place, repository, keys });

    const reader = await install(cluster, { ...place, ...keys.read }, "reader");
    const verified = await reader.run("verify", "--full");
    assert.equal(verified.code, 0, verified.stdout + verified.stderr);
    const target = join(cluster.directory, "restored");
    await reader.mustRun("backup-fetch", target, "LATEST");
    await using restored = await restoreCluster(target, {
      major: MAJOR,
      signal: "recovery",
      restoreCommand: reader.restoreCommand,
    });
    assert.equal(restored.outcome, "promoted", restored.log());
    assert.equal(await restored.contents(), contents);
  });
}

/** What must not be possible without the right key. */
async function checkRefusals(
  cluster: Cluster,
  {
    place,
    repository,
    keys,
  }: { place: Readonly<Record<string, string>>; repository: string; keys: Keys },
): Promise<void> {
  const before = await filesBelow(repository);
  const segment = (await readdir(join(repository, "wal_005"))).toSorted()[0] ?? "";
  const target = join(cluster.directory, "refused");

  const wrong = await install(cluster, { ...place, ...keys.other }, "wrong");
  const wrongFetch = await wrong.run("backup-fetch", target, "LATEST");
  assert.equal(wrongFetch.code, 25, wrongFetch.stderr);
  assert.match(wrongFetch.stderr, /wrong key \(id [0-9A-Fa-f]+, have [0-9A-Fa-f]+/);
  // Never a code by which recovery would end here.
  assert.equal((await wrong.run("wal-fetch", segment, join(cluster.directory, "to"))).code, 200);
  assert.equal((await wrong.run("backup-list")).code, 0, "sentinels are plain");

  const keyless = await install(cluster, place, "keyless");
  assert.equal((await keyless.run("wal-fetch", segment, join(cluster.directory, "to"))).code, 200);
  const keylessFetch = await keyless.run("backup-fetch", target, "LATEST");
  assert.notEqual(keylessFetch.code, 0);
  assert.match(keylessFetch.stderr, /no key is configured/);
  const file = join(cluster.directory, "some-file");
  await writeFile(file, "content", { mode: 0o644 });
  const keylessPush = await keyless.run("wal-push", file);
  assert.equal(keylessPush.code, 3, keylessPush.stderr);
  assert.match(keylessPush.stderr, /holds encrypted objects .*no key is configured to encrypt/);

  const lost = { ...keys.write, ...place };
  const [setting = ""] = Object.keys(keys.write).filter((name) => name.endsWith("_PATH"));
  const unreadable = await install(cluster, { ...lost, [setting]: "/no/such/key" }, "unreadable");
  for (const words of [
    ["backup-push", cluster.dataDirectory],
    ["backup-list"],
    ["wal-push", file],
  ]) {
    const { code, stderr } = await unreadable.run(...words);
    assert.equal(code, 3, stderr);
  }
  assert.deepEqual(await filesBelow(repository), before, "nothing was stored");
}
