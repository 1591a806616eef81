import { mkdtemp, mkdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { openStorage } from "../../src/storage/open.ts";
import { leaveOut } from "../support/left-out.ts";
import { isRcloneAvailable, localRemote } from "../support/rclone.ts";
import { storageContract } from "./contract.ts";

const signal = new AbortController().signal;

if (isRcloneAvailable()) {
  const directory = await mkdtemp(join(tmpdir(), "walnut-rclone-test-"));
  let count = 0;
  after(async () => await rm(directory, { recursive: true, force: true }));

  storageContract(
    "rclone on a local remote",
    async () => {
      const path = join(directory, `test ${count++} ü+%`);
      await mkdir(path);
      const storage = await openStorage(localRemote(path), {
        signal,
        requestTimeoutMs: 20_000,
        uploadConcurrency: 4,
      });
      const close = async () => {
        await storage[Symbol.asyncDispose]();
        await rm(path, { recursive: true });
      };
      return { storage, close };
    },
    // rclone looks, then writes: no provider's conditions come through. It has no pages.
    { isCreateAtomic: false, isReplaceAtomic: false, keyCount: 11 },
  );
} else {
  leaveOut("rclone store", "rclone is not installed");
}
