import assert from "node:assert/strict";
import { test } from "node:test";
import { WaitingCalls } from "../../src/archive/waiting-calls.ts";

test("all who wait for a file are told once, and nobody else", () => {
  const calls = new WaitingCalls();
  const told: unknown[] = [];
  for (const name of ["a", "b", "a"]) calls.add(name, (answer) => told.push([name, answer]));
  const answer = { kind: "declined", reason: "r" } as const;
  calls.tell("a", answer);
  calls.tell("a", answer);
  assert.deepEqual(told, [
    ["a", answer],
    ["a", answer],
  ]);
  assert.deepEqual([calls.names, calls.has("a"), calls.has("b")], [["b"], false, true]);
});
