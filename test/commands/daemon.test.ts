/** What the daemon tells systemd, in this process, with a clock that can be moved. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import type { Reloaded } from "../../src/commands/command.ts";
import { createContext } from "../../src/commands/context.ts";
import { daemon } from "../../src/commands/daemon.ts";
import { defaultConfig } from "../../src/config/load.ts";
import { formatMessage } from "../../src/daemon/protocol.ts";
import { ConfigError, InterruptedError } from "../../src/errors.ts";
import { systemClock } from "../../src/io/clock.ts";
import { loadSystemCalls } from "../../src/io/runtime.ts";
import { TcpFaultProxy } from "../support/fault-proxy.ts";
import { listenForNotices, type Notices } from "../support/notices.ts";
import { collectingLog } from "../support/restoring.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { needsTool } from "../support/tools.ts";
import { until } from "../support/until.ts";
import { s3Config } from "../support/s3-config.ts";

const ACCOUNT = { bucket: "bucket", accessKeyId: "id", secretAccessKey: "secret" };

const WATCHDOG_MS = 200;
const NAME = "00000002.history";

/** The next notice but those that `skip` matches. */
async function nextOf(notices: Notices, skip: RegExp): Promise<string> {
  for (;;) {
    const notice = await notices.next();
    if (!skip.test(notice)) return notice;
  }
}

const suites = needsTool("what the daemon tells systemd", "python3") ? ["systemd"] : [];
for (const suite of suites) {
  test(`${suite} hears of start, reload, progress, standstill and end`, async () => {
    using directory = scratchDirectory();
    const data = join(directory.path, "data");
    const socketPath = join(directory.path, "walnut.sock");
    mkdirSync(join(data, "pg_wal"), { recursive: true });
    // A store that takes connections and never answers.
    await using silent = await TcpFaultProxy.start({ host: "127.0.0.1", port: 1 });
    silent.fault = { isSilent: true };
    const address = `@${directory.path}`;
    await using notices = await listenForNotices(address);
    const log = collectingLog();
    const stop = new AbortController();
    let skippedMs = 0;
    const hangUps: (() => void)[] = [];
    const reloads: (() => Reloaded)[] = [];
    const config = {
      ...defaultConfig({ cpuCount: 2 }),
      dataDirectory: data,
      cacheDirectory: join(directory.path, "cache"),
      storage: s3Config({ ...ACCOUNT, endpoint: `http://127.0.0.1:${silent.port}` }),
    };
    const running = daemon.run(
      { socketPath },
      createContext({
        config,
        log,
        clock: { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + skippedMs },
        signal: stop.signal,
        workingDirectory: directory.path,
        write: async () => {},
        progress: { update: () => {}, end: () => {} },
        launch: {
          processId: 1,
          environment: { NOTIFY_SOCKET: address, WATCHDOG_USEC: String(WATCHDOG_MS * 1000) },
        },
        onSignal: (signal, listener) => void (signal === "SIGHUP" && hangUps.push(listener)),
        reload: async () => (reloads.shift() ?? (() => ({ config, log })))(),
      }),
    );
    const routine = /^(STATUS|WATCHDOG)=/;
    assert.equal(await nextOf(notices, /^STATUS=/), "READY=1");
    for (let count = 0; count < 3; count += 1) {
      assert.equal(await nextOf(notices, /^STATUS=/), "WATCHDOG=1");
    }

    reloads.push(() => {
      throw new ConfigError("wrong");
    });
    for (const [expected, suffix] of [
      [/new settings are refused.*wrong/, "; new settings were refused, see the log"],
      [/settings were read anew/, ""],
    ] as const) {
      hangUps[0]?.();
      assert.match(await nextOf(notices, routine), /^RELOADING=1\nMONOTONIC_USEC=\d+$/);
      assert.equal(await nextOf(notices, routine), "READY=1");
      assert.match(log.lines.at(-1) ?? "", expected);
      const status = `STATUS=0 done, 0 failed, 0 under way${suffix}`;
      assert.equal(await nextOf(notices, /^WATCHDOG=/), status);
    }

    const client = connect(socketPath);
    client.write(formatMessage({ kind: "fetch", name: NAME, destination: "out" }));
    const begun = "STATUS=0 done, 0 failed, 1 under way";
    assert.equal(await nextOf(notices, /WATCHDOG|0 under way/), begun);
    skippedMs += 1_000_000;
    const standstills = () => log.lines.filter((line) => /no call has ended for long/.test(line));
    const calls = await loadSystemCalls();
    for (const count of [1, 4]) {
      await until("a standstill is told", () => standstills().length >= count);
      calls?.sendDatagram(address, `MARK=${count}`);
    }
    assert.equal(await nextOf(notices, /^WATCHDOG=/), "MARK=1");
    assert.equal(await notices.next(), "MARK=4");
    client.destroy();
    const ended = "STATUS=0 done, 1 failed, 0 under way";
    assert.equal(await nextOf(notices, /^WATCHDOG=/), ended);
    assert.equal(await nextOf(notices, /^STATUS=/), "WATCHDOG=1");

    stop.abort(new InterruptedError("enough"));
    assert.equal(await nextOf(notices, routine), "STOPPING=1");
    await running;
    assert.ok(!existsSync(socketPath));
  });
}
