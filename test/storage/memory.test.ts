import { MemoryStorage } from "../support/memory-storage.ts";
import { storageContract } from "./contract.ts";

storageContract("memory", async () => ({ storage: new MemoryStorage(), close: async () => {} }));
