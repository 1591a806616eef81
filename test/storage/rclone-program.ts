/** Stores one object through rclone, says so, and waits to be killed. */
import { openStorage } from "../../src/storage/open.ts";
import { localRemote } from "../support/rclone.ts";
import { text } from "./contract-lists.ts";

const [, , path = "", program = ""] = process.argv;
const signal = new AbortController().signal;
const options = { signal, requestTimeoutMs: 20_000, uploadConcurrency: 1 };
const storage = await openStorage(localRemote(path, { program }), options);
await storage.put("a", text("x"), { signal });
process.stdout.write("stored\n");
setInterval(() => {}, 60_000);
