import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { leaveOut } from "../support/left-out.ts";
import { initCluster, restoreCluster } from "../support/postgres.ts";
import type { Cluster } from "../support/postgres.ts";
import { isRcloneAvailable } from "../support/rclone.ts";
import { install } from "../support/repository.ts";
import type { Installation } from "../support/repository.ts";
import { availableS3Servers, startS3Server } from "../support/s3-server.ts";
import { chownTree, serverUser } from "../support/server-user.ts";
import { isSshServerAvailable, startSshServer } from "../support/ssh-server.ts";

const MAJOR = 18;

type Settings = Readonly<Record<string, string>>;

interface Store {
  readonly name: string;
  readonly isAvailable: boolean;
  readonly settings: (cluster: Cluster, servers: AsyncDisposableStack) => Promise<Settings>;
}

const stores: readonly Store[] = [
  {
    name: "SFTP",
    isAvailable: isSshServerAvailable(),
    settings: async (_, servers) => {
      const server = servers.use(await startSshServer());
      const store = join(server.stores, "repository");
      await mkdir(store);
      await chownTree(store, serverUser());
      return {
        WALG_SSH_PREFIX: `ssh://127.0.0.1${store}`,
        SSH_PORT: String(server.port),
        SSH_USERNAME: server.username,
        SSH_PRIVATE_KEY_PATH: join(server.directory, "ed25519"),
        WALNUT_SSH_KNOWN_HOSTS: join(server.directory, "known_hosts"),
      };
    },
  },
  {
    name: "Swift",
    isAvailable: (await availableS3Servers()).includes("swift"),
    settings: async (_, servers) => {
      const server = servers.use(await startS3Server("swift"));
      return {
        WALG_SWIFT_PREFIX: `swift://${server.bucket}/cluster`,
        OS_AUTH_URL: `${server.endpoint}/auth/v1.0`,
        OS_USERNAME: server.accessKeyId,
        OS_PASSWORD: server.secretAccessKey,
      };
    },
  },
  {
    name: "rclone",
    isAvailable: isRcloneAvailable(),
    settings: async (cluster) => ({
      WALG_RCLONE_PREFIX: `rclone:here:${await cluster.makeDirectory("repository")}`,
      RCLONE_CONF_BASE64: Buffer.from("[here]\ntype = local\n").toString("base64"),
    }),
  },
];

for (const { name, isAvailable } of stores) {
  if (!isAvailable) leaveOut(`round trip: ${name}`, "its server is not installed");
}
const available = stores.filter(({ isAvailable }) => isAvailable);

test(`round trips: ${available.map(({ name }) => name).join(", ")}`, async () => {
  await using servers = new AsyncDisposableStack();
  await using cluster = await initCluster({
    major: MAJOR,
    segmentMiB: 1,
    settings: { archive_mode: "on" },
  });
  const installed: Installation[] = [];
  for (const { name, settings } of available) {
    installed.push(await install(cluster, await settings(cluster, servers), name));
  }
  const commands = installed.map(({ archiveCommand }) => archiveCommand);
  await cluster.configure({ archive_command: commands.join(" && ") });
  await cluster.start();
  await cluster.query(
    "create table t as select i, repeat('x', 99) from generate_series(1, 2000) i",
  );
  for (const walnut of installed) await walnut.mustRun("backup-push", cluster.dataDirectory);
  await cluster.query("delete from t where i % 3 = 0");
  await cluster.switchWal();
  await cluster.waitForArchiver();
  const contents = await cluster.contents();

  for (const [index, walnut] of installed.entries()) {
    const target = join(cluster.directory, `restored ${index}`);
    await walnut.mustRun("backup-fetch", target, "LATEST");
    const { restoreCommand } = walnut;
    const options = { major: MAJOR, signal: "recovery", restoreCommand } as const;
    await using restored = await restoreCluster(target, options);
    assert.equal(restored.outcome, "promoted", restored.log());
    assert.equal(await restored.contents(), contents);
  }
});
