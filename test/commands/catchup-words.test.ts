import assert from "node:assert/strict";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { catchUpReceive } from "../../src/commands/catchup-receive.ts";
import { catchUpSend } from "../../src/commands/catchup-send.ts";
import type { Flag } from "../../src/commands/command.ts";
import { readCommandLine } from "../../src/commands/words.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { runCommand } from "../support/command-run.ts";

function wordsOf(words: readonly string[], flags: readonly Flag[]) {
  return readCommandLine(words, { names: () => [], find: () => undefined }, flags).words;
}

function receiverOf(text: string) {
  return catchUpSend.parse(wordsOf(["data", text], [])).receiver;
}

function parseReceive(...words: string[]) {
  return catchUpReceive.parse(wordsOf(words, catchUpReceive.flags));
}

test("the receiver is a host and a port, also of IPv6", () => {
  assert.deepEqual(receiverOf("standby:7001"), { host: "standby", port: 7001 });
  assert.deepEqual(receiverOf("[fd00::1]:1"), { host: "fd00::1", port: 1 });
  for (const text of ["standby", "standby:", ":7001", "standby:0", "standby:65536", "fd00::1:1"]) {
    assert.throws(
      () => receiverOf(text),
      { name: "UsageError", message: /is not host:port$/ },
      text,
    );
  }
});

test("the receiver listens on this host only, unless told", () => {
  assert.equal(parseReceive("data", "7001").address, "127.0.0.1");
  assert.equal(parseReceive("data", "7001", "--listen", "0.0.0.0").address, "0.0.0.0");
  for (const port of ["x", "-1", "65536", "7001.5", "host:7001"]) {
    assert.throws(() => parseReceive("data", port), { name: "UsageError" }, port);
  }
});

for (const [what, config, message] of [
  ["no secret", {}, /^WALNUT_CATCHUP_SECRET is not set/],
  ["a short secret", { catchUpSecret: "fifteen letters" }, /has less than 16 characters/],
] as const) {
  test(`with ${what} neither end begins`, async () => {
    const storage = new MemoryStorage();
    const refused = { name: "RefusedError", message };
    const receive = runCommand(catchUpReceive, storage, [tmpdir(), "0"], config);
    await assert.rejects(receive, refused);
    const send = runCommand(catchUpSend, storage, [tmpdir(), "127.0.0.1:1"], config);
    await assert.rejects(send, refused);
  });
}
