import { after } from "node:test";
import { openStorage } from "../../src/storage/open.ts";
import { leaveOut } from "../support/left-out.ts";
import { availableS3Servers, startS3Server } from "../support/s3-server.ts";
import type { S3Server } from "../support/s3-server.ts";
import { swiftConfig } from "../support/swift-config.ts";
import { storageContract } from "./contract.ts";

const signal = new AbortController().signal;

if ((await availableS3Servers()).includes("swift")) {
  let started: Promise<S3Server> | undefined;
  let count = 0;
  after(async () => (await started)?.stop());

  storageContract(
    "swift",
    async () => {
      const server = await (started ??= startS3Server("swift"));
      const config = swiftConfig(server, { prefix: `native ${count++}/+ü` });
      const storage = await openStorage(config, {
        signal,
        requestTimeoutMs: 20_000,
        uploadConcurrency: 4,
      });
      return { storage, close: async () => await storage[Symbol.asyncDispose]() };
    },
    // Swift looks, then writes: two requests that cross may both win; of our one copy a reader may
    // look up the old file just before it goes. swift.test.ts has the pages.
    { isCreateAtomic: false, isReplaceAtomic: false, keyCount: 11 },
  );
} else {
  leaveOut("Swift store", "Debian's python3-swift is not installed");
}
