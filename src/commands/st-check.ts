import { randomBytes } from "node:crypto";
import { StorageError, UsageError } from "../errors.ts";
import { bytesSource, readAll } from "../io/bytes.ts";
import { cleanPath } from "../storage/folder.ts";
import { statIfThere } from "../storage/object-copy.ts";
import type { Storage } from "../storage/storage.ts";
import { removeCheckObject } from "./check-object.ts";
import type { Context } from "./command.ts";
import type { StorageTool } from "./st.ts";

/** `st check read [objects]` and `st check write`. Any failure is exit code 1: scripts test it. */
export const checkTool: StorageTool = async (words, context) => {
  const [kind, ...paths] = words.positionals;
  const { signal } = context;
  if (kind !== "read" && kind !== "write") {
    throw new UsageError(kind === undefined ? "what to check is missing" : `no check ${kind}`, {
      hint: "`walnut st check read [objects]` reads, `walnut st check write` stores and removes one.",
    });
  }
  await using storage = await context.openStorage("check");
  if (kind === "write") await checkWrite(storage, context);
  else await checkRead(storage, paths.map(cleanPath), signal);
  await context.write(kind === "write" ? "Write check OK\n" : "Read check OK\n");
};

async function checkRead(
  storage: Storage,
  keys: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const missing: string[] = [];
  for (const key of keys) {
    if ((await statIfThere(storage, key, { signal })) === undefined) missing.push(key);
  }
  if (missing.length > 0) {
    throw new StorageError(`objects are missing in ${storage.name}: ${missing.join(", ")}`, {
      isRetryable: false,
    });
  }
  // A list that answers at all is the proof when no object is named.
  for await (const _ of storage.list("", { signal })) break;
}

async function checkWrite(
  storage: Storage,
  context: Pick<Context, "signal" | "log">,
): Promise<void> {
  const { signal } = context;
  const key = randomBytes(16).toString("hex");
  const bytes = Buffer.from("walnut checks that it can write here\n");
  await storage.put(key, bytesSource(bytes), { signal });
  const stored = await readAll(storage.get(key, { signal }));
  await removeCheckObject(storage, key, context);
  if (!stored.equals(bytes)) {
    throw new StorageError(`${storage.name} gave back other bytes than it was given`, {
      isRetryable: false,
    });
  }
}
