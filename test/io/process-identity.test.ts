import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import {
  describeHolder,
  describeProcess,
  isProcessAlive,
  stateOfHolder,
} from "../../src/io/process-identity.ts";

test("this process is alive under its own name, and only under that", () => {
  const name = describeProcess();
  assert.match(name ?? "", /^\d+:\d+:[0-9a-f-]{36}$/);
  assert.equal(describeProcess(), name);
  const [pid = "", start = "", boot = ""] = (name ?? "").split(":");
  assert.equal(pid, String(process.pid));
  assert.equal(isProcessAlive(`${pid}:${start}:${boot}`), true);
  assert.equal(isProcessAlive(`${pid}:${Number(start) + 1}:${boot}`), false);
  assert.equal(isProcessAlive(`${pid}:${start}:${boot.replace(/^./, "x")}`), false);
  assert.equal(isProcessAlive(`self:${start}:${boot}`), false);
  assert.equal(isProcessAlive(""), false);
});

test("a process that was killed is not alive", async () => {
  const child = spawn(process.execPath, [
    "-e",
    `import(${JSON.stringify(new URL("../../src/io/process-identity.ts", import.meta.url))})
       .then((module) => process.stdout.write(module.describeProcess() + "\\n"));
     setInterval(() => {}, 1000);`,
  ]);
  const [line]: unknown[] = await once(child.stdout, "data");
  const name = String(line).trim();
  assert.equal(isProcessAlive(name), true);
  child.kill("SIGKILL");
  await once(child, "exit");
  assert.equal(isProcessAlive(name), false);
});

test("a holder is judged only where its name means something", () => {
  const holder = describeHolder() ?? "";
  assert.equal(stateOfHolder(holder), "alive");
  assert.equal(stateOfHolder(holder.replace(/^\d+/, "4194305")), "dead");
  assert.equal(stateOfHolder(holder.replace(/@.*/, "@pid:[1]")), "unknown", "another container");
  assert.equal(stateOfHolder(holder.replace(/:[^:]*@/, ":another-boot@")), "unknown");
  assert.equal(stateOfHolder(""), "unknown");
});
