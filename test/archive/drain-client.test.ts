import assert from "node:assert/strict";
import { createConnection } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { askDrainer } from "../../src/archive/drain-client.ts";
import {
  type DrainAnswer,
  drainLines,
  formatLine,
  readLines,
} from "../../src/archive/drain-protocol.ts";
import { LineServer } from "../../src/archive/line-server.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

const signal = AbortSignal.timeout(60_000);
const push = (name: string) => ({ kind: "push", name, settings: "s" }) as const;

test("a drainer that lives is waited for, however long it is silent about the file", async () => {
  using scratch = scratchDirectory();
  const path = join(scratch.path, "drain.sock");
  const waiting = new Map<string, (answer: DrainAnswer) => void>();
  const lines = drainLines((request, answer) => {
    if (request.kind === "push") waiting.set(request.name, answer);
    answer({ kind: "taken" });
  });
  await using _server = await LineServer.listen(path, lines);
  const asked = askDrainer(path, push("a"), { timeoutMs: 60_000, silenceMs: 3000, signal });
  // Another caller sees how often it is told: once a second.
  let toldCount = 0;
  const other = createConnection({ path });
  other.on("connect", () => other.write(formatLine(push("b"))));
  readLines(other, () => {
    if (++toldCount === 5) waiting.get("a")?.({ kind: "stored", outcome: "archived" });
  });
  assert.deepEqual(await asked, { kind: "stored", outcome: "archived" });
  other.destroy();
});

test("one that froze behind its word is left", async () => {
  using scratch = scratchDirectory();
  const path = join(scratch.path, "drain.sock");
  const { isInterim: _, ...frozen } = drainLines((__, answer) => answer({ kind: "taken" }));
  await using _server = await LineServer.listen(path, frozen);
  const answer = await askDrainer(path, push("a"), { timeoutMs: 60_000, silenceMs: 50, signal });
  assert.deepEqual(answer, {
    kind: "declined",
    reason: "it says nothing any more, for 50 ms",
  });
});
