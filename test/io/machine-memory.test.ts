import assert from "node:assert/strict";
import { totalmem } from "node:os";
import { test } from "node:test";
import { leastLimit, machineMemoryBytes } from "../../src/io/machine-memory.ts";

test("the least limit of memory counts, what is none does not", () => {
  assert.equal(leastLimit(1000, []), 1000);
  assert.equal(leastLimit(1000, ["max\n", "", "9223372036854771712\n"]), 1000);
  assert.equal(leastLimit(1000, ["700\n", "max\n", "800\n"]), 700);
});

test("this machine has memory", async () => {
  const bytes = await machineMemoryBytes();
  assert.ok(bytes > 0 && bytes <= totalmem(), String(bytes));
});
