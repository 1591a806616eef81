import { after } from "node:test";
import { openStorage } from "../../src/storage/open.ts";
import { azureConfig, startAzurite } from "../support/azurite.ts";
import type { Azurite } from "../support/azurite.ts";
import { storageContract } from "./contract.ts";

const signal = new AbortController().signal;

let started: Promise<Azurite> | undefined;
let count = 0;
after(async () => (await started)?.stop());

const open = async () => {
  const server = await (started ??= startAzurite());
  const config = azureConfig(server, { prefix: `test ${count++}/+ü` });
  const storage = await openStorage(config, {
    signal,
    requestTimeoutMs: 20_000,
    uploadConcurrency: 4,
  });
  return { storage, close: async () => await storage[Symbol.asyncDispose]() };
};

storageContract("azure on azurite", open, { refusesBackslash: true });
