import { readFile, realpath, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { localFileError } from "../io/system-error.ts";
import { systemErrorCode } from "../errors.ts";
import type { WriterClaim } from "../layout/writer-claim.ts";

/** A server, as far as it can be told from another one that has the same files. */
export type Writer = Pick<
  WriterClaim,
  "name" | "host" | "dataDirectory" | "directoryId" | "bootId"
>;

/** @source Linux: random(4); other systems have none */
const BOOT_ID = "/proc/sys/kernel/random/boot_id";

/**
 * Describes the server of a data directory; `name` is WALNUT_SERVER_NAME. Rejects with
 * LocalFileError.
 */
export async function describeWriter(
  dataDirectory: string,
  name: string | undefined,
): Promise<Writer> {
  try {
    const resolved = await realpath(dataDirectory);
    const { dev, ino } = await stat(resolved, { bigint: true });
    return {
      name: name ?? "",
      host: hostname(),
      dataDirectory: resolved,
      directoryId: `${dev}:${ino}`,
      bootId: await readBootId(),
    };
  } catch (error) {
    throw localFileError("read", dataDirectory, error);
  }
}

/** Whether both are the same server: FAILOVER.md tells why. */
export function isSameWriter(one: Writer, other: Writer): boolean {
  if (one.name !== "" && other.name !== "") return one.name === other.name;
  const isSameHost = one.host === other.host;
  const isSameDirectory = one.directoryId === other.directoryId;
  if (isSameHost) return isSameDirectory || one.dataDirectory === other.dataDirectory;
  return isSameDirectory && one.bootId !== "" && one.bootId === other.bootId;
}

/**
 * Everything that is known of a server, for the cache: another one for each start of the machine.
 */
export function writerFingerprint(writer: Writer): string {
  const { name, host, dataDirectory, directoryId, bootId } = writer;
  return JSON.stringify([name, host, dataDirectory, directoryId, bootId]);
}

/** For messages: "pg1:/var/lib/postgresql/17/main". */
export function showWriter({ name, host, dataDirectory }: Writer): string {
  const place = `${host}:${dataDirectory}`;
  return name === "" ? place : `${name} (${place})`;
}

async function readBootId(): Promise<string> {
  try {
    return (await readFile(BOOT_ID, "utf8")).trim();
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return "";
  }
}
