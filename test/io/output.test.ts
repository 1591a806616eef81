import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, constants, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { descriptorWriter } from "../../src/io/output.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";

test("what the descriptor takes is there when the call returns, in order", async () => {
  using directory = scratchDirectory();
  const path = join(directory.path, "out");
  const descriptor = openSync(path, "w");
  try {
    const write = descriptorWriter(descriptor);
    const calls = [write("one\n"), write(""), write("zwö\n")];
    assert.equal(readFileSync(path, "utf8"), "one\n");
    await Promise.all(calls);
    assert.equal(readFileSync(path, "utf8"), "one\nzwö\n");
  } finally {
    closeSync(descriptor);
  }
});

test("a full pipe that does not wait gets all of several texts in order", async () => {
  using directory = scratchDirectory();
  const path = join(directory.path, "pipe");
  execFileSync("mkfifo", [path]);
  const reader = spawn("sh", ["-c", 'exec < "$0"; sleep 0.2; cat', path], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let received = "";
  reader.stdout.setEncoding("utf8").on("data", (text: string) => (received += text));
  const descriptor = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  try {
    const write = descriptorWriter(descriptor);
    const texts = ["a", "b", "c"].map((letter) => letter.repeat(300_000));
    await Promise.all(texts.map((text) => write(text)));
    closeSync(descriptor);
    await once(reader, "close");
    assert.equal(received, texts.join(""));
  } finally {
    reader.kill("SIGKILL");
  }
});

test("rejects with what the system says, and goes on with the next text", async () => {
  const full = openSync("/dev/full", "w");
  try {
    const write = descriptorWriter(full);
    await assert.rejects(write("x"), { code: "ENOSPC" });
    await assert.rejects(write("y"), { code: "ENOSPC" });
    await write("");
  } finally {
    closeSync(full);
  }
});
