import { explainMissing } from "./gcs-read.ts";
import type { GcsTransport } from "./gcs-transport.ts";
import type { CallOptions, ObjectKey } from "./storage.ts";

/**
 * One request that deletes an object; with `generation` only if it is still that one. Throws
 * ObjectNotFoundError where there is none.
 */
export async function deleteObject(
  transport: GcsTransport,
  key: ObjectKey,
  { signal, generation }: CallOptions & { readonly generation?: string },
): Promise<void> {
  const path = transport.objectPath(key);
  const query = generation === undefined ? {} : { ifGenerationMatch: generation };
  try {
    await transport.sendForText({ verb: "delete", key, method: "DELETE", path, query }, { signal });
  } catch (error) {
    throw await explainMissing(transport, { key, error }, { signal });
  }
}
