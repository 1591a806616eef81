import type { Members } from "./failover-members.ts";
import type { Upkeep } from "./storage.ts";
import { anyKeepsVersions } from "./version-keeping.ts";

/** Of all stores; a put's id begins with the number of its store. */
export function joinUpkeep({ all }: Members): Upkeep {
  return {
    async *listUnfinished(prefix, options) {
      for (const [index, { store }] of all.entries()) {
        for await (const put of store.upkeep?.listUnfinished(prefix, options) ?? []) {
          yield { ...put, id: `${index} ${put.id}` };
        }
      }
    },
    async removeUnfinished(put, options) {
      const space = put.id.indexOf(" ");
      const member = all[Number(put.id.slice(0, space))];
      const id = put.id.slice(space + 1);
      await member?.store.upkeep?.removeUnfinished({ ...put, id }, options);
    },
    async readHold(key, options) {
      for (const { store } of all) {
        const hold = await store.upkeep?.readHold?.(key, options);
        if (hold !== undefined) return hold;
      }
      return undefined;
    },
    async keepsVersions(options) {
      const storages = all.map(({ store }) => store);
      return await anyKeepsVersions(storages, options);
    },
  };
}
