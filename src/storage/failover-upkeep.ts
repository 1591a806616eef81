import type { Members } from "./failover-members.ts";
import type { HeldDelete, Upkeep } from "./storage.ts";
import { anyKeepsVersions } from "./version-keeping.ts";

/** The one that needs most care first. */
const HELD_DELETES = ["hidden", undefined, "refused", "none"] as const;

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
    async heldDelete(options) {
      const answers = new Set<HeldDelete | undefined>();
      for (const { store } of all) {
        const { upkeep } = store;
        const isHolding = upkeep?.readHold !== undefined;
        answers.add(isHolding ? await upkeep?.heldDelete?.(options) : "none");
      }
      return HELD_DELETES.find((answer) => answers.has(answer));
    },
    async keepsVersions(options) {
      const storages = all.map(({ store }) => store);
      return await anyKeepsVersions(storages, options);
    },
  };
}
