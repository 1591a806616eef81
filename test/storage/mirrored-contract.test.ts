import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../src/io/clock.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import type { MirrorPolicy } from "../../src/storage/mirrored.ts";
import { MemoryStorage } from "../support/memory-storage.ts";
import { mirroredStorage } from "../support/mirror.ts";
import { scratchDirectory } from "../support/scratch-directory.ts";
import { storageContract } from "./contract.ts";

const POLICIES: readonly MirrorPolicy[] =
  process.env["WALNUT_LONG"] === undefined ? ["primary"] : ["primary", "all"];

for (const policy of POLICIES) {
  storageContract(`mirrored, policy ${policy}`, async () => {
    const scratch = scratchDirectory();
    const path = join(scratch.path, "primary");
    await mkdir(path);
    const storage = mirroredStorage({
      primary: new DirectoryStorage(path, systemClock),
      mirror: new MemoryStorage(),
      directory: join(scratch.path, "queue"),
      policy,
    });
    const close = async (): Promise<void> => {
      await storage[Symbol.asyncDispose]();
      scratch[Symbol.dispose]();
    };
    return { storage, close };
  });
}
