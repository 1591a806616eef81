import { codecByExtension } from "../codec/table.ts";
import { RefusedError } from "../errors.ts";
import { readAll } from "../io/bytes.ts";
import { isDamage } from "../storage/copies.ts";
import type { Soundness } from "../storage/mirror-sync.ts";
import type { ObjectKey, Storage } from "../storage/storage.ts";
import type { Context } from "./command.ts";

/** A document that is parsed to find out whether it can be. */
const DOCUMENT_BYTES_MAX = 512 * 1024 * 1024;

/**
 * What an object tells of itself: decrypts and decompresses it. What has no checksum and is no
 * document tells nothing. Rejects with ObjectNotFoundError, and as stores do.
 */
export async function judgeObject(
  storage: Storage,
  key: ObjectKey,
  { config, signal }: Pick<Context, "config" | "signal">,
): Promise<Soundness> {
  const extension = /\.([^./]+)$/.exec(key)?.[1] ?? "";
  const codec = extension === "" ? undefined : codecByExtension(extension);
  const content = storage.get(key, { signal });
  try {
    if (extension === "json") {
      JSON.parse((await readAll(content, DOCUMENT_BYTES_MAX)).toString("utf8"));
      return "whole";
    }
    const decoded = codec?.decompress(content, { jobs: config.codecJobs, signal }) ?? content;
    for await (const _ of decoded);
    return codec?.hasContentChecksum === true ? "whole" : "unknown";
  } catch (error) {
    if (isDamage(error) || error instanceof SyntaxError) return "damaged";
    if (error instanceof RefusedError) return "unknown";
    throw error;
  }
}
