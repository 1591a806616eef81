import assert from "node:assert/strict";
import { chmod, chown, copyFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { connectPostgres } from "../../src/connection/connect.ts";
import type { ConnectionSettings } from "../../src/connection/target.ts";
import { makeCertificates } from "../support/certificates.ts";
import { leaveOut } from "../support/left-out.ts";
import { type Cluster, startCluster } from "../support/postgres.ts";

const signal = AbortSignal.timeout(120_000);
const place = await mkdtemp(join(tmpdir(), "walnut-tls-"));
const certificates = await makeCertificates(place);
const all: { cluster?: Cluster } = {};

after(async () => {
  await all.cluster?.[Symbol.asyncDispose]();
  await rm(place, { recursive: true });
});

if (certificates === undefined) {
  leaveOut("connections with TLS", "openssl is not installed");
} else {
  const trusted = { sslRootCertificateFile: certificates.authorityFile };
  before(async () => {
    const cluster = await startCluster({ major: 16 });
    all.cluster = cluster;
    for (const [from, to] of [
      ["server.pem", "server.crt"],
      ["server.key", "server.key"],
    ] as const) {
      const path = join(cluster.dataDirectory, to);
      await copyFile(join(place, from), path);
      await chmod(path, 0o600);
      if (cluster.user !== undefined) await chown(path, cluster.user.uid, cluster.user.gid);
    }
    await cluster.query("ALTER SYSTEM SET ssl = on");
    await cluster.query("CREATE ROLE plain LOGIN");
    await cluster.query("CREATE ROLE safe LOGIN");
    const hba = join(cluster.dataDirectory, "pg_hba.conf");
    const own = await readFile(hba, "utf8");
    const lines = ["hostnossl all plain all trust", "hostssl all safe all trust"];
    const others = ["host all plain all reject", "host all safe all reject"];
    await writeFile(hba, `${[...lines, ...others].join("\n")}\n${own}`);
    await cluster.query("SELECT pg_reload_conf()");
    await cluster.waitFor("SELECT current_setting('ssl') = 'on'");
  });

  const connections = [
    ["prefer takes TLS when the server has it", {}, true],
    ["disable does not", { sslMode: "disable" }, false],
    ["allow does not, unless the server insists", { sslMode: "allow" }, false],
    ["allow takes TLS where the server insists", { sslMode: "allow", user: "safe" }, true],
    ["prefer does without where the server insists", { user: "plain" }, false],
    ["require looks at no certificate", { sslMode: "require" }, true],
    ["require with an authority does", { sslMode: "require", ...trusted }, true],
    [
      "verify-ca accepts another name",
      { sslMode: "verify-ca", host: "localhost", ...trusted },
      true,
    ],
    ["verify-full accepts the right name", { sslMode: "verify-full", ...trusted }, true],
  ] as const;

  for (const [what, change, isEncrypted] of connections) {
    test(what, async () => {
      await using session = await connectPostgres(settings(change), { signal });
      const sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
      assert.equal((await session.row(sql, { signal }))["ssl"], isEncrypted ? "t" : "f");
      assert.equal(session.isPooled, false);
    });
  }

  const refusals = [
    ["require, no rule for it", { sslMode: "require", user: "plain" }, /pg_hba.conf rejects/],
    ["disable, no rule for it", { sslMode: "disable", user: "safe" }, /pg_hba.conf rejects/],
    [
      "verify-full, another name",
      { sslMode: "verify-full", host: "localhost", ...trusted },
      /hostname|altname|localhost/i,
    ],
    [
      "verify-ca, a certificate of somebody else",
      { sslMode: "verify-ca", sslRootCertificateFile: join(place, "server.pem") },
      /certificate/,
    ],
    ["verify-full, an authority that nobody knows", { sslMode: "verify-full" }, /certificate/],
  ] as const;

  for (const [what, change, message] of refusals) {
    test(`refused: ${what}`, async () => {
      const connecting = connectPostgres(settings(change), { signal });
      await assert.rejects(connecting, { name: "DatabaseError", message });
    });
  }
}

function settings(change: Partial<ConnectionSettings>): ConnectionSettings {
  return {
    host: "127.0.0.1",
    port: all.cluster?.port ?? 0,
    user: "postgres",
    database: "postgres",
    applicationName: "walnut-test",
    ...change,
  };
}
