import { ObjectExistsError, ObjectNotFoundError, OperationError } from "../errors.ts";
import { AwayErrors, type Member, type Members } from "./failover-members.ts";
import type { CallOptions, ObjectKey } from "./storage.ts";

/**
 * Rejects with ObjectExistsError if one of the other stores that are alive has the object; those
 * that do not answer are not waited for.
 */
export async function requireNowhere(
  members: Members,
  key: ObjectKey,
  { except, signal }: CallOptions & { readonly except: Member },
): Promise<void> {
  const others = members
    .readers()
    .filter((member) => member !== except && members.isAlive(member, "read"));
  await Promise.all(
    others.map(async (member) => {
      const attempt = new AwayErrors(members, "read", { signal }).attempt(member);
      try {
        await members.storeOf(member, "read", true).stat(key, { signal });
      } catch (error) {
        return await attempt.fail(error);
      }
      throw new ObjectExistsError(key, members.title);
    }),
  );
}

/** Deletes in each store; rejects after all were asked if one that counts did not do it. */
export async function deleteEverywhere(
  members: Members,
  keys: readonly ObjectKey[],
  options: CallOptions,
): Promise<void> {
  const away = new AwayErrors(members, "read", options);
  await Promise.all(
    members.readers().map(async (member) => {
      const attempt = away.attempt(member);
      try {
        const store = members.storeOf(member, "read", members.leavesOutDead);
        await store.delete(keys, options);
      } catch (error) {
        // No store says so of a delete.
        if (error instanceof ObjectNotFoundError) throw error;
        await attempt.fail(error);
        if (error instanceof OperationError && !members.readers().includes(member)) {
          members.log.warning("not deleted in a storage that is dead", {
            storage: member.name,
            first: keys[0] ?? "",
            count: keys.length,
          });
        }
      }
    }),
  );
  away.requireNone(`a delete of ${keys.length} objects`);
}
