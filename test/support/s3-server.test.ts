import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { test } from "node:test";
import { leaveOut } from "./left-out.ts";
import { S3_SERVER_KINDS, availableS3Servers, startS3Server } from "./s3-server.ts";

const available = await availableS3Servers();
for (const kind of S3_SERVER_KINDS) {
  // The gateway is an extra: it takes a Go toolchain, which no test machine must have.
  if (kind !== "versitygw" && !available.includes(kind)) {
    leaveOut(`S3 on ${kind}`, "scripts/test-servers.sh was not run on this machine");
  }
}

for (const kind of available) {
  test(`${kind} starts, answers on 127.0.0.1 and is gone after stop`, async () => {
    const server = await startS3Server(kind);
    assert.match(server.endpoint, /^http:\/\/127\.0\.0\.1:\d+$/);
    const { hostname, port } = new URL(server.endpoint);
    await server.stop();

    const socket = connect({ host: hostname, port: Number(port) });
    await assert.rejects(once(socket, "connect"), { code: "ECONNREFUSED" });
  });
}
