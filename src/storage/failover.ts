import { ObjectExistsError, ObjectNotFoundError } from "../errors.ts";
import type { ByteSource, ByteStream } from "../io/bytes.ts";
import { deleteEverywhere, requireNowhere } from "./failover-all.ts";
import { mergeLists, newestOf } from "./failover-list.ts";
import { AwayErrors, type Member, type Members } from "./failover-members.ts";
import { requireValidKey } from "./key.ts";
import { ChangedObjectError } from "./request-errors.ts";
import { foundOrNothing } from "./presence.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectKey,
  OpenedObject,
  PutOptions,
  Storage,
  Upkeep,
} from "./storage.ts";
import { joinUpkeep } from "./failover-upkeep.ts";
import { WatchedSource } from "./watched-source.ts";

/** Objects that must be in one store: those of a backup. */
export interface StoredGroup {
  /** Prefix of all of them but the mark. */
  readonly folder: string;
  /** The object whose presence makes the group whole. */
  readonly markKey: ObjectKey;
}

/** What the keys mean, as far as it matters here. */
export interface KeyRules {
  readonly groupOf: (key: ObjectKey) => StoredGroup | undefined;
  /** Whether an object may be replaced by a later state of the same. */
  readonly isRewritten: (key: ObjectKey) => boolean;
}

/**
 * Several stores as one: FAILOVER_STORAGES.md. Each object is in one of them, a group of objects
 * wholly in one. "Missing" is what all say that count; one that does not answer fails the call
 * instead, unless another one has the object.
 */
export class FailoverStorage implements Storage {
  readonly name: string;
  readonly upkeep: Upkeep;
  readonly unseen: readonly string[];
  readonly #members: Members;
  readonly #rules: KeyRules;
  /** Where groups are, by their marks, as far as it is known. */
  readonly #homes = new Map<ObjectKey, Member>();
  /** Where groups are put, once that was chosen. */
  readonly #choices = new Map<ObjectKey, Promise<Member>>();

  constructor(members: Members, rules: KeyRules) {
    this.name = members.title;
    this.#members = members;
    this.#rules = rules;
    this.upkeep = joinUpkeep(members);
    this.unseen = members.unseen;
  }

  get first(): Storage | undefined {
    return this.#members.all[0]?.patient;
  }

  async *get(key: ObjectKey, options: GetOptions): ByteStream {
    const away = new AwayErrors(this.#members, "read", options);
    const candidates = await this.#readersOf(key, options);
    for (const member of candidates) {
      const state: { isBegun: boolean; opened?: OpenedObject } = { isBegun: false };
      const begin = (): void => {
        if (state.isBegun) return;
        state.isBegun = true;
        if (state.opened !== undefined) options.onOpened?.(state.opened);
      };
      const onOpened = (object: OpenedObject): void => void (state.opened = object);
      const attempt = away.attempt(member);
      try {
        const store = this.#members.storeOf(member, "read", candidates.length > 1);
        for await (const chunk of store.get(key, { ...options, onOpened })) {
          begin();
          yield chunk;
        }
        begin();
        attempt.succeed();
        return;
      } catch (error) {
        // Another store's object need not have the same bytes.
        if (state.isBegun || error instanceof ChangedObjectError) throw error;
        await attempt.fail(error);
      }
    }
    throw away.verdict(new ObjectNotFoundError(key, this.name), `object ${key}`);
  }

  async put(key: ObjectKey, body: ByteSource, options: PutOptions): Promise<void> {
    requireValidKey(key);
    const group = this.#rules.groupOf(key);
    if (group !== undefined) {
      const home = await this.#homeForPut(group, options);
      try {
        await this.#members.storeOf(home, "write", false).put(key, body, options);
      } catch (error) {
        throw error instanceof ObjectExistsError ? this.#exists(key, error) : error;
      }
      this.#members.succeeded(home, "write");
      this.#homes.set(group.markKey, home);
      return;
    }
    const candidates = this.#members.writers();
    const [first] = candidates;
    if (options.ifAbsent === true && first !== undefined) {
      await requireNowhere(this.#members, key, { ...options, except: first });
    }
    const away = new AwayErrors(this.#members, "write", options);
    for (const member of candidates) {
      const watched = new WatchedSource(body);
      const attempt = away.attempt(member);
      try {
        const store = this.#members.storeOf(member, "write", candidates.length > 1);
        await store.put(key, watched, options);
        attempt.succeed();
        return;
      } catch (error) {
        if (watched.isFailedBy(error)) throw error;
        if (error instanceof ObjectExistsError) throw this.#exists(key, error);
        await attempt.fail(error);
        if (!body.isReopenable) throw error;
      }
    }
    throw away.verdict(undefined, `a put of ${key}`);
  }

  async stat(key: ObjectKey, options: CallOptions): Promise<ObjectInfo> {
    requireValidKey(key);
    const away = new AwayErrors(this.#members, "read", options);
    const candidates = await this.#candidatesOf(key, options);
    for (const member of candidates) {
      const attempt = away.attempt(member);
      try {
        const store = this.#members.storeOf(member, "read", candidates.length > 1);
        const info = await store.stat(key, options);
        attempt.succeed();
        if (!this.#rules.isRewritten(key) || candidates.length === 1) return info;
        return await this.#newest(info, { key, candidates, found: member }, options);
      } catch (error) {
        await attempt.fail(error);
      }
    }
    throw away.verdict(new ObjectNotFoundError(key, this.name), `object ${key}`);
  }

  async *list(prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    const group = this.#rules.groupOf(prefix);
    const pinned = group === undefined ? undefined : this.#members.pinned;
    const listed = pinned === undefined ? this.#members.readers() : [pinned];
    const sources = listed.map((member) => ({
      name: member.name,
      objects: this.#listOne(member, prefix, options),
    }));
    yield* mergeLists(sources, {
      groupOf: (key) => this.#rules.groupOf(key)?.markKey,
      homeOf: async (markKey) => (await this.#home(markKey, options))?.name,
      isRewritten: this.#rules.isRewritten,
    });
  }

  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<void> {
    const { pinned } = this.#members;
    const isOwn = (key: ObjectKey): boolean => this.#rules.groupOf(key) !== undefined;
    const own = pinned === undefined ? [] : keys.filter(isOwn);
    const others = pinned === undefined ? keys : keys.filter((key) => !isOwn(key));
    if (pinned !== undefined && own.length > 0) {
      await this.#members.storeOf(pinned, "write", false).delete(own, options);
    }
    if (others.length > 0) await deleteEverywhere(this.#members, others, options);
    for (const key of keys) {
      this.#homes.delete(key);
      this.#choices.delete(key);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#members.close();
  }

  #exists(key: ObjectKey, cause: ObjectExistsError): ObjectExistsError {
    return new ObjectExistsError(key, this.name, { cause });
  }

  async *#listOne(member: Member, prefix: string, options: ListOptions): AsyncIterable<ObjectInfo> {
    const { pinned } = this.#members;
    const away = new AwayErrors(this.#members, "read", options);
    const attempt = away.attempt(member);
    try {
      const store = this.#members.storeOf(member, "read", this.#members.leavesOutDead);
      for await (const info of store.list(prefix, options)) {
        const isElsewhere = pinned !== undefined && pinned !== member;
        if (isElsewhere && this.#rules.groupOf(info.key) !== undefined) continue;
        yield info;
      }
      attempt.succeed();
    } catch (error) {
      if (error instanceof ObjectNotFoundError) throw error;
      await attempt.fail(error);
      // One that is left out from now on is no loss for those who may do without it.
      away.requireNone(`a list of ${JSON.stringify(prefix)}`);
    }
  }

  /** In the order in which they are to be asked. */
  async #readersOf(key: ObjectKey, options: CallOptions): Promise<readonly Member[]> {
    requireValidKey(key);
    const candidates = await this.#candidatesOf(key, options);
    if (candidates.length < 2 || !this.#rules.isRewritten(key)) return candidates;
    const found: { readonly member: Member; readonly modifiedAt: Date }[] = [];
    const away = new AwayErrors(this.#members, "read", options);
    for (const member of candidates) {
      const attempt = away.attempt(member);
      try {
        const store = this.#members.storeOf(member, "read", true);
        found.push({ member, modifiedAt: (await store.stat(key, options)).modifiedAt });
      } catch (error) {
        await attempt.fail(error);
      }
    }
    // The one that is away may have the newest.
    away.requireNone(`object ${key}`);
    const newest = newestOf(found)?.member;
    return newest === undefined ? candidates : [newest];
  }

  async #candidatesOf(key: ObjectKey, options: CallOptions): Promise<readonly Member[]> {
    const group = this.#rules.groupOf(key);
    if (group === undefined) return this.#members.readers();
    const home = await this.#home(group.markKey, options);
    return home === undefined ? this.#members.readers() : [home];
  }

  /** The store that a group is read from: the first that has its mark. */
  async #home(markKey: ObjectKey, options: CallOptions): Promise<Member | undefined> {
    if (this.#members.pinned !== undefined) return this.#members.pinned;
    const known = this.#homes.get(markKey);
    if (known !== undefined) return known;
    const away = new AwayErrors(this.#members, "read", options);
    for (const member of this.#members.readers()) {
      const attempt = away.attempt(member);
      try {
        await this.#members.storeOf(member, "read", true).stat(markKey, options);
        this.#homes.set(markKey, member);
        return member;
      } catch (error) {
        await attempt.fail(error);
      }
    }
    away.requireNone(`object ${markKey}`);
    return undefined;
  }

  /** One choice for all puts of a group, also for those that begin at the same time. */
  async #homeForPut(group: StoredGroup, options: CallOptions): Promise<Member> {
    const { markKey } = group;
    const choice = this.#choices.get(markKey) ?? this.#chooseHome(group, options);
    this.#choices.set(markKey, choice);
    try {
      return await choice;
    } catch (error) {
      if (this.#choices.get(markKey) === choice) this.#choices.delete(markKey);
      throw error;
    }
  }

  async #chooseHome(group: StoredGroup, options: CallOptions): Promise<Member> {
    const home = await this.#home(group.markKey, options);
    if (home !== undefined) return home;
    for (const member of this.#members.readers()) {
      const store = this.#members.storeOf(member, "read", true);
      for await (const _ of store.list(group.folder, options)) return member;
    }
    return this.#members.firstWriter();
  }

  async #newest(
    info: ObjectInfo,
    { key, candidates, found }: { key: ObjectKey; candidates: readonly Member[]; found: Member },
    options: CallOptions,
  ): Promise<ObjectInfo> {
    const infos = [info];
    for (const member of candidates) {
      if (member === found) continue;
      const store = this.#members.storeOf(member, "read", true);
      const other = await foundOrNothing(() => store.stat(key, options));
      if (other !== undefined) infos.push(other);
    }
    return newestOf(infos) ?? info;
  }
}
