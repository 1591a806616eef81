import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { test } from "node:test";
import { CatchUpListener, connectCatchUp } from "../../src/backup/catch-up-connection.ts";
import { systemClock } from "../../src/io/clock.ts";
import { collectingLog } from "../support/restoring.ts";

const HOST = "127.0.0.1";
const SECRET = "a secret of sixteen or more";

test("strangers that say nothing, or the wrong thing, hold up nobody who knows the secret", async () => {
  const log = collectingLog();
  const signal = AbortSignal.timeout(60_000);
  const options = { secret: SECRET, idleMs: 50_000, clock: systemClock, log, signal };
  await using listener = await CatchUpListener.open({ host: HOST, port: 0 }, options);
  const at = { host: HOST, port: listener.port };
  const silent = connect(at);
  const loud = connect(at);
  try {
    await Promise.all([once(silent, "connect"), once(loud, "connect")]);
    loud.on("error", () => {});
    loud.write("GET / HTTP/1.1\r\nHost: standby.example.com\r\nAccept: */*\r\n\r\n");
    await assert.rejects(connectCatchUp(at, { ...options, secret: "another one, as long as it" }));
    const [near, far] = await Promise.all([listener.accept(), connectCatchUp(at, options)]);
    await near[Symbol.asyncDispose]();
    await far[Symbol.asyncDispose]();
  } finally {
    silent.destroy();
    loud.destroy();
  }
  assert.match(log.lines.join("\n"), /a connection was refused/);
});
