import { after } from "node:test";
import { openStorage } from "../../src/storage/open.ts";
import { GcsEmulation, gcsConfig } from "../support/gcs-emulation.ts";
import { storageContract } from "./contract.ts";

const signal = new AbortController().signal;

let started: Promise<GcsEmulation> | undefined;
let count = 0;
after(async () => await (await started)?.[Symbol.asyncDispose]());

storageContract("gcs on an emulation", async () => {
  const server = await (started ??= GcsEmulation.start());
  const config = gcsConfig(server, { prefix: `test ${count++}/+ü` });
  const storage = await openStorage(config, {
    signal,
    requestTimeoutMs: 20_000,
    uploadConcurrency: 4,
  });
  return { storage, close: async () => await storage[Symbol.asyncDispose]() };
});
