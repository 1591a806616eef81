import { OperationError } from "../errors.ts";
import type { Log } from "../io/log.ts";
import type { ObjectHold, Storage, UnfinishedPut, Upkeep } from "./storage.ts";
import { anyKeepsVersions } from "./version-keeping.ts";

/** Of several stores as of one; undefined if none of them can do any of it. */
export function mirroredUpkeep(storages: readonly Storage[], log: Log): Upkeep | undefined {
  const all = storages.map(({ upkeep }) => upkeep);
  if (all.every((upkeep) => upkeep === undefined)) return undefined;
  return {
    async *listUnfinished(prefix, options) {
      for (const [index, upkeep] of all.entries()) {
        try {
          for await (const put of upkeep?.listUnfinished(prefix, options) ?? []) {
            yield { ...put, id: `${index}:${put.id}` };
          }
        } catch (error) {
          options.signal.throwIfAborted();
          if (index === 0 || !(error instanceof OperationError)) throw error;
          log.warning("unfinished puts of a mirror stay", { reason: error.message });
        }
      }
    },
    async removeUnfinished(put, options) {
      const at = put.id.indexOf(":");
      const inner: UnfinishedPut = { ...put, id: put.id.slice(at + 1) };
      await all[Number(put.id.slice(0, at))]?.removeUnfinished(inner, options);
    },
    keepsVersions: async (options) => await anyKeepsVersions(storages, options),
    // A hold of the primary's keeps an object; a mirror's own hold fails its delete alone.
    ...(all[0]?.readHold === undefined
      ? {}
      : {
          readHold: async (key, options): Promise<ObjectHold | undefined> =>
            await all[0]?.readHold?.(key, options),
          heldDelete: async (options) => await all[0]?.heldDelete?.(options),
        }),
  };
}
