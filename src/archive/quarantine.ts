import { dirname } from "node:path";
import { ObjectExistsError, ObjectNotFoundError, OperationError } from "../errors.ts";
import { type ByteSource, bytesSource } from "../io/bytes.ts";
import type { Log } from "../io/log.ts";
import { formatJson } from "../layout/json.ts";
import { type JsonObject, jsonObject } from "../layout/json-value.ts";
import { quarantineKey } from "../layout/keys.ts";
import type { CallOptions, Storage } from "../storage/storage.ts";
import type { Side } from "./comparison.ts";
import type { LocalWal } from "./local-wal.ts";
import { describeWriter, showWriter } from "./writer.ts";

/** Two contents of one name. */
export interface Collision {
  readonly local: LocalWal;
  readonly storedKey: string;
  readonly sides: { readonly stored: Side; readonly local: Side };
  /** WALNUT_SERVER_NAME. */
  readonly serverName: string | undefined;
  /** Two levels above the file unless given. */
  readonly dataDirectory?: string | undefined;
  /** Of `body`, without dot. */
  readonly extension: string;
  /** The object of the local file. */
  readonly body: () => ByteSource;
}

/**
 * Keeps the file that collided beside the archive, once. Gives the key of its description;
 * undefined if it could not be kept: then only the log says so. Never rejects but when aborted.
 */
export async function quarantine(
  storage: Storage,
  collision: Collision,
  { signal, log }: CallOptions & { readonly log: Log },
): Promise<string | undefined> {
  const { local, sides, extension, body } = collision;
  const base = quarantineKey(local.name, sides.local.sha256);
  const descriptionKey = `${base}.json`;
  try {
    if (await exists(storage, descriptionKey, { signal })) return descriptionKey;
    const contentKey = extension === "" ? base : `${base}.${extension}`;
    await create(storage, contentKey, { body: body(), signal });
    const text = await describe(collision, contentKey);
    await create(storage, descriptionKey, { body: bytesSource(Buffer.from(text)), signal });
    return descriptionKey;
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof OperationError)) throw error;
    log.warning("the file that collided could not be kept in quarantine", {
      wal: local.name,
      reason: error.message,
    });
    return undefined;
  }
}

async function describe(
  { local, storedKey, sides, serverName, dataDirectory }: Collision,
  contentKey: string,
): Promise<string> {
  const writer = await describeWriter(dataDirectory ?? dirname(dirname(local.path)), serverName);
  return `${formatJson(
    jsonObject([
      ["wal", local.name],
      ["object", contentKey],
      ["pushed_by", showWriter(writer)],
      ["system_identifier", local.systemId],
      ["content", sideOf(sides.local)],
      ["archived_as", storedKey],
      ["archived_content", sideOf(sides.stored)],
    ]),
  )}\n`;
}

function sideOf({ sizeBytes, sha256, endOfRecords }: Side): JsonObject {
  return jsonObject([
    ["size", BigInt(sizeBytes)],
    ["sha256", sha256],
    ["end_of_records", endOfRecords === undefined ? undefined : BigInt(endOfRecords)],
  ]);
}

async function exists(storage: Storage, key: string, { signal }: CallOptions): Promise<boolean> {
  try {
    await storage.stat(key, { signal });
    return true;
  } catch (error) {
    if (error instanceof ObjectNotFoundError) return false;
    throw error;
  }
}

async function create(
  storage: Storage,
  key: string,
  { body, signal }: { readonly body: ByteSource; readonly signal: AbortSignal },
): Promise<void> {
  try {
    await storage.put(key, body, { signal, ifAbsent: true });
  } catch (error) {
    if (!(error instanceof ObjectExistsError)) throw error;
  }
}
