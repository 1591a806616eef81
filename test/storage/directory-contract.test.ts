import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../src/io/clock.ts";
import { DirectoryStorage } from "../../src/storage/directory.ts";
import { storageContract } from "./contract.ts";

storageContract("directory", async () => {
  const root = await mkdtemp(join(tmpdir(), "walnut-storage-"));
  const storage = new DirectoryStorage(root, systemClock);
  return { storage, close: () => rm(root, { recursive: true }) };
});
