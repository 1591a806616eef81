import { after } from "node:test";
import { openStorage } from "../../src/storage/open.ts";
import { hasFakeGcsServer, startFakeGcsServer } from "../support/fake-gcs-server.ts";
import { GcsEmulation, gcsConfig } from "../support/gcs-emulation.ts";
import { storageContract } from "./contract.ts";

const signal = new AbortController().signal;

type Server = AsyncDisposable & { readonly endpoint: string; readonly bucket: string };

const servers: readonly (readonly [string, () => Promise<Server>])[] = [
  ["an emulation", () => GcsEmulation.start()],
  ...(hasFakeGcsServer() ? [["fake-gcs-server", startFakeGcsServer] as const] : []),
];

for (const [name, start] of servers) {
  let started: Promise<Server> | undefined;
  let count = 0;
  after(async () => await (await started)?.[Symbol.asyncDispose]());

  const open = async () => {
    const server = await (started ??= start());
    const config = gcsConfig(server, { prefix: `test ${count++}/+ü` });
    const storage = await openStorage(config, {
      signal,
      requestTimeoutMs: 20_000,
      uploadConcurrency: 4,
    });
    return { storage, close: async () => await storage[Symbol.asyncDispose]() };
  };
  // It has no second page of a list.
  const gaps = { keyCount: 101 };
  storageContract(`gcs on ${name}`, open, name === "fake-gcs-server" ? gaps : {});
}
