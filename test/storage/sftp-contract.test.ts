import { execFileSync } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after } from "node:test";
import { openStorage } from "../../src/storage/open.ts";
import { leaveOut } from "../support/left-out.ts";
import { chownTree, serverUser } from "../support/server-user.ts";
import { isSshServerAvailable, startSshServer } from "../support/ssh-server.ts";
import type { SshServer } from "../support/ssh-server.ts";
import { storageContract } from "./contract.ts";

const signal = new AbortController().signal;

if (!isSshServerAvailable()) {
  leaveOut("SFTP store", "openssh-server is not installed");
} else {
  let started: Promise<SshServer> | undefined;
  let count = 0;
  after(async () => (await started)?.stop());

  storageContract(
    "sftp on OpenSSH",
    async () => {
      const server = await (started ??= startSshServer());
      const path = join(server.stores, `test ${count++} ü`);
      await mkdir(path);
      await chownTree(path, serverUser());
      const storage = await openStorage(server.config(path), {
        signal,
        requestTimeoutMs: 20_000,
        uploadConcurrency: 4,
      });
      const close = async () => {
        await storage[Symbol.asyncDispose]();
        execFileSync("rm", ["-rf", path]);
      };
      return { storage, close };
    },
    // Times come in seconds: two objects of one length look the same within one. A page has 100.
    { areVersionsCoarse: true, keyCount: 101 },
  );
}
