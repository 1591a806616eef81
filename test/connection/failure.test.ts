import assert from "node:assert/strict";
import { test } from "node:test";
import { databaseError } from "../../src/connection/failure.ts";

function refusal(code: string, message: string): Error {
  return Object.assign(new Error(message), { code, severity: "FATAL" });
}

for (const [error, hint] of [
  [
    refusal(
      "53300",
      'number of requested standby connections exceeds "max_wal_senders" (currently 2)',
    ),
    /^Raise max_wal_senders/,
  ],
  [refusal("53300", "sorry, too many clients already"), /^Raise max_connections/],
  [
    refusal("28000", 'no pg_hba.conf entry for host "::1", user "x", no encryption'),
    /set PGSSLMODE/,
  ],
  [refusal("28000", 'role "x" does not exist'), /^Check PGUSER/],
  [refusal("42501", "must be superuser or replication role to start walsender"), /REPLICATION\.$/],
  [new Error("self signed certificate"), /PGSSLROOTCERT/],
  [new Error("unable to verify the first certificate"), /PGSSLROOTCERT/],
] as const) {
  test(`"${error.message}" is told with a way out`, () => {
    const told = databaseError("can't connect", error);
    assert.ok(told.message.startsWith("can't connect: "), told.message);
    assert.match(String(told.hint), hint);
  });
}
