import { execFileSync } from "node:child_process";
import { utimesSync } from "node:fs";
import { join } from "node:path";
import { type BackupWorld, backupWorldOf } from "./backup-world.ts";
import { type Major, restoreCluster } from "./postgres.ts";
import type { Random } from "./random.ts";

/** What one step of a history does to a cluster, as SQL for one database. */
type Action = (history: ClusterHistory) => Promise<void>;

/** A cluster that lives through random changes, crashes and failovers. */
export class ClusterHistory {
  world: BackupWorld;
  /** What was done, for a failure's message. */
  readonly steps: string[] = [];
  readonly #random: Random;
  /** Worlds that were left by a failover. */
  readonly #left: BackupWorld[] = [];
  readonly #tables = new Map<string, string[]>([["postgres", []]]);
  #count = 0;

  constructor(world: BackupWorld, random: Random) {
    this.world = world;
    this.#random = random;
  }

  /** Some random steps of change. */
  async change(count: number): Promise<void> {
    for (let done = 0; done < count; done += 1) {
      const actions = this.#actions();
      const [name, action] = pick(this.#random, actions);
      this.steps.push(name);
      await action(this);
    }
  }

  async crash(): Promise<void> {
    this.steps.push("crash");
    await this.world.cluster.stop("immediate");
    await this.world.cluster.start();
  }

  /** Goes on with a copy of the files, whose times are those of long ago, on a new timeline. */
  async failOver(major: Major): Promise<void> {
    this.steps.push("failover");
    const { cluster, repository } = this.world;
    await cluster.stop();
    const directory = join(cluster.directory, `promoted ${this.#left.length}`);
    execFileSync("cp", ["-a", cluster.dataDirectory, directory]);
    utimesSync(join(directory, "PG_VERSION"), 1, 1);
    const promoted = await restoreCluster(directory, {
      major,
      signal: "recovery",
      restoreCommand: `cp "${repository}/wal_005/%f" "%p"`,
      settings: {
        archive_mode: "on",
        archive_command: `cp "%p" "${repository}/wal_005/%f"`,
      },
    });
    if (promoted.outcome !== "promoted") throw new Error(promoted.log());
    this.#left.push(this.world);
    this.world = backupWorldOf(promoted, repository);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const world of [this.world, ...this.#left.toReversed()]) {
      await world[Symbol.asyncDispose]();
    }
  }

  #actions(): readonly (readonly [string, Action])[] {
    const sql =
      (text: (table: string) => string): Action =>
      async () => {
        const [database, tables] = pick(this.#random, [...this.#tables]);
        if (tables.length === 0) return await this.#create(database, tables);
        await this.world.cluster.query(text(pick(this.#random, tables)), database);
      };
    const number = (max: number): number => Math.floor(this.#random.next() * max);
    return [
      ["create", async () => await this.#create(...pick(this.#random, [...this.#tables]))],
      ["insert", sql((table) => `INSERT INTO ${table} ${rows(number(2000))}`)],
      ["insert more", sql((table) => `INSERT INTO ${table} ${rows(8000)}`)],
      ["update", sql((table) => `UPDATE ${table} SET t = t || 'u' WHERE id % 97 = ${number(97)}`)],
      ["update all", sql((table) => `UPDATE ${table} SET t = left(t, 5)`)],
      ["delete", sql((table) => `DELETE FROM ${table} WHERE id > ${number(3000)}`)],
      ["delete the end", sql((table) => `DELETE FROM ${table} WHERE id > ${number(900)}`)],
      ["update some", sql((table) => `UPDATE ${table} SET id = id + 1 WHERE id % 13 = 0`)],
      ["cut and grow", async () => await this.#cutAndGrow()],
      ["vacuum", sql((table) => `VACUUM ${table}`)],
      ["vacuum freeze", sql((table) => `VACUUM (FREEZE) ${table}`)],
      ["vacuum full", sql((table) => `VACUUM FULL ${table}`)],
      ["truncate", sql((table) => `TRUNCATE ${table}`)],
      ["reindex", sql((table) => `REINDEX TABLE ${table}`)],
      ["hint bits", sql((table) => `SELECT count(t) FROM ${table}`)],
      ["unlogged", sql((table) => `ALTER TABLE ${table} SET UNLOGGED`)],
      ["logged", sql((table) => `ALTER TABLE ${table} SET LOGGED`)],
      ["checkpoint", async () => void (await this.world.cluster.query("CHECKPOINT"))],
      ["drop", async () => await this.#drop()],
      ["create database", async () => await this.#createDatabase()],
      ["drop database", async () => await this.#dropDatabase()],
      ["tablespace", async () => await this.#moveToTablespace()],
    ];
  }

  async #create(database: string, tables: string[]): Promise<void> {
    const name = `t${(this.#count += 1)}`;
    const index = pick(this.#random, ["btree (id)", "btree (t)", "hash (id)", "brin (id)"]);
    await this.world.cluster.query(
      `CREATE TABLE ${name} (id int, t text) ; CREATE INDEX ON ${name} USING ${index};
       INSERT INTO ${name} ${rows(1000)}`,
      database,
    );
    tables.push(name);
  }

  /** VACUUM gives pages at the end back, unless somebody looks; then the same file grows again. */
  async #cutAndGrow(): Promise<void> {
    const [database, tables] = pick(this.#random, [...this.#tables]);
    if (tables.length === 0) return await this.#create(database, tables);
    const table = pick(this.#random, tables);
    const { cluster } = this.world;
    const pages = Math.floor(this.#random.next() * 5);
    await cluster.query(`DELETE FROM ${table} WHERE ctid > '(${pages}, 0)'`, database);
    await cluster.query(`VACUUM ${table}`, database);
    // Row by row: from 16 on that makes room for more than there are.
    const program = `seq 1 ${500 * (1 + pages)} | sed "s/$/\\tcopied/"`;
    const copy = `COPY ${table} FROM PROGRAM '${program}' WHERE random() >= 0`;
    await cluster.query(copy, database);
  }

  async #drop(): Promise<void> {
    const [database, tables] = pick(this.#random, [...this.#tables]);
    const table = tables.pop();
    if (table !== undefined) await this.world.cluster.query(`DROP TABLE ${table}`, database);
  }

  /** From one with tables, file by file where the server can. */
  async #createDatabase(): Promise<void> {
    const { cluster } = this.world;
    const [template, tables] = pick(this.#random, [...this.#tables]);
    const name = `d${(this.#count += 1)}`;
    const isCopied = cluster.major >= 15 && this.#random.next() < 0.7;
    // As pg_upgrade does: an oid that an earlier database had.
    const oid = cluster.major >= 15 ? ` OID = ${20_000 + Math.floor(this.#random.next() * 3)}` : "";
    const taken = await cluster.value(
      `SELECT count(*) FROM pg_database WHERE oid = ${Number(oid.slice(7)) || 1}`,
    );
    const words = `${isCopied ? " STRATEGY = file_copy" : ""}${taken === "0" ? oid : ""}`;
    const source = template === "postgres" ? "template1" : template;
    await cluster.query(`CREATE DATABASE ${name} TEMPLATE = ${source}${words}`);
    this.#tables.set(name, source === "template1" ? [] : [...tables]);
  }

  async #dropDatabase(): Promise<void> {
    const names = [...this.#tables.keys()].filter((name) => name !== "postgres");
    if (names.length === 0) return;
    const name = pick(this.#random, names);
    const drop = `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`;
    try {
      await this.world.cluster.query(drop);
    } catch (error) {
      // The server's counters of an earlier database with this oid are in the way: not ours.
      if (!(error instanceof Error) || !error.message.includes("drop stats entry")) throw error;
      await this.crash();
      await this.world.cluster.query(drop);
    }
    this.#tables.delete(name);
  }

  async #moveToTablespace(): Promise<void> {
    const { cluster } = this.world;
    const [database, tables] = pick(this.#random, [...this.#tables]);
    if (tables.length === 0) return;
    const table = pick(this.#random, tables);
    if ((await cluster.value("SELECT count(*) FROM pg_tablespace")) === "2") {
      const location = await cluster.makeDirectory(`space ${(this.#count += 1)}`);
      await cluster.query(`CREATE TABLESPACE s${this.#count} LOCATION '${location}'`);
    }
    const space = await cluster.value("SELECT max(spcname) FROM pg_tablespace WHERE oid > 16000");
    const place = this.#random.next() < 0.5 ? space : "pg_default";
    await cluster.query(`ALTER TABLE ${table} SET TABLESPACE ${place}`, database);
  }
}

function rows(count: number): string {
  return `SELECT g, repeat(md5(g::text), 3) FROM generate_series(1, ${count}) g`;
}

function pick<T>(random: Random, items: readonly T[]): T {
  const item = items[Math.floor(random.next() * items.length)];
  if (item === undefined) throw new RangeError("nothing to choose from");
  return item;
}
