import assert from "node:assert/strict";
import { test } from "node:test";
import { connectionTargets, formatTarget, passwordFileHost } from "../../src/connection/target.ts";

const base = { applicationName: "walnut" };

function texts(settings: object, hasRootCertificate = false): string[] {
  return connectionTargets({ ...base, ...settings }, hasRootCertificate).map(
    (target) => `${formatTarget(target)} ${target.tls}`,
  );
}

const rows = [
  [
    {},
    [
      "/var/run/postgresql, port 5432 none",
      "/tmp, port 5432 none",
      "localhost:5432 required",
      "localhost:5432 none",
    ],
  ],
  [{ host: "/run/x", port: 5433, sslMode: "verify-full" }, ["/run/x, port 5433 none"]],
  [{ host: "a,b", sslMode: "disable" }, ["a:5432 none", "b:5432 none"]],
  [{ host: "a", sslMode: "allow" }, ["a:5432 none", "a:5432 required"]],
  [{ host: "a", sslMode: "prefer" }, ["a:5432 required", "a:5432 none"]],
  [{ host: "a", sslMode: "require" }, ["a:5432 required"]],
  [{ host: "a", sslMode: "verify-ca" }, ["a:5432 trusted"]],
  [{ host: "a", sslMode: "verify-full" }, ["a:5432 verified"]],
  [{ host: "a", sslMode: "unknown" }, ["a:5432 required"]],
] as const;

for (const [settings, expected] of rows) {
  test(`targets of ${JSON.stringify(settings)}`, () => assert.deepEqual(texts(settings), expected));
}

test("require checks the certificate when there is one to trust", () => {
  assert.deepEqual(texts({ host: "a", sslMode: "require" }, true), ["a:5432 trusted"]);
  assert.deepEqual(texts({ host: "a", sslMode: "prefer" }, true), [
    "a:5432 required",
    "a:5432 none",
  ]);
});

test("a password file calls the usual socket directories localhost", () => {
  assert.equal(passwordFileHost("/tmp"), "localhost");
  assert.equal(passwordFileHost("/var/run/postgresql"), "localhost");
  assert.equal(passwordFileHost("/srv/socket"), "/srv/socket");
  assert.equal(passwordFileHost("db1"), "db1");
});
