import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { readService, ServiceNotifier } from "../../src/daemon/service.ts";
import { loadSystemCalls } from "../../src/io/runtime.ts";
import { listenForNotices } from "../support/notices.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { needsTool } from "../support/tools.ts";
import { until } from "../support/until.ts";

test("reads what systemd tells, if it is meant for us", () => {
  const all = {
    NOTIFY_SOCKET: "/run/systemd/notify",
    WATCHDOG_USEC: "30000000",
    WATCHDOG_PID: "42",
    LISTEN_PID: "42",
    LISTEN_FDS: "1",
  };
  assert.deepEqual(readService({ processId: 42, environment: all }), {
    notifySocket: "/run/systemd/notify",
    watchdogMs: 30_000,
    listenDescriptor: 3,
  });
  assert.deepEqual(readService({ processId: 43, environment: all }), {
    notifySocket: "/run/systemd/notify",
  });
  const { WATCHDOG_PID: _, ...withoutPid } = all;
  assert.equal(readService({ processId: 43, environment: withoutPid }).watchdogMs, 30_000);
  const odd = { NOTIFY_SOCKET: "run/x", WATCHDOG_USEC: "0", LISTEN_PID: "42", LISTEN_FDS: "-1" };
  assert.deepEqual(readService({ processId: 42, environment: odd }), {});
  assert.deepEqual(readService({ processId: 42, environment: {} }), {});
});

const kinds = needsTool("systemd's datagrams", "python3") ? ["a path", "an abstract name"] : [];
for (const kind of kinds) {
  test(`tells a real datagram socket with ${kind}`, async () => {
    using directory = scratchDirectory();
    const path = join(directory.path, "notify");
    const address = kind === "a path" ? path : `@${path}`;
    await using notices = await listenForNotices(address);
    const notifier = await ServiceNotifier.open({ notifySocket: address });
    const calls = await loadSystemCalls();
    const before = calls?.monotonicUs() ?? 0n;
    notifier.ready();
    notifier.status("all\nis well");
    notifier.status("all\nis well");
    notifier.reloading();
    notifier.alive();
    notifier.stopping();
    assert.equal(await notices.next(), "READY=1");
    assert.equal(await notices.next(), "STATUS=all is well");
    const reloading = await notices.next();
    const [, us = "0"] = /^RELOADING=1\nMONOTONIC_USEC=(\d+)$/.exec(reloading) ?? [];
    assert.ok(BigInt(us) >= before && before > 0n, reloading);
    // The listener's own reading of the same clock.
    assert.ok(BigInt(us) <= BigInt(await notices.monotonicUs()), reloading);
    assert.equal(await notices.next(), "WATCHDOG=1");
    assert.equal(await notices.next(), "STOPPING=1");
  });
}

test("systemd-notify is called where the runtime has no datagrams", async () => {
  using directory = scratchDirectory();
  const said = join(directory.path, "said");
  const program = `#!/bin/sh\necho "$NOTIFY_SOCKET $*" > ${said}.tmp; /bin/mv ${said}.tmp ${said}\n`;
  writeFileSync(join(directory.path, "systemd-notify"), program, { mode: 0o755 });
  new ServiceNotifier("@notify", undefined, directory.path).ready();
  await until("systemd-notify is called", () => existsSync(said));
  assert.equal(readFileSync(said, "utf8"), "@notify READY=1\n");
});

test("nobody who listens is no failure", async () => {
  const calls = await loadSystemCalls();
  assert.equal(calls?.sendDatagram("/no/such/socket", "READY=1"), false);
  assert.equal(calls?.sendDatagram(`/${"x".repeat(200)}`, "READY=1"), false);
  assert.equal(calls?.sendDatagram("", "READY=1"), false);
  (await ServiceNotifier.open({ notifySocket: "/no/such/socket" })).ready();
  (await ServiceNotifier.open({})).ready();
});
