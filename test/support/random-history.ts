/** Random changes of a server, from a seed. */
import type { Cluster } from "./postgres.ts";
import type { Random } from "./random.ts";

/** Changes tables, databases and tablespaces at random; remembers what there is. */
export class RandomHistory {
  readonly #cluster: Cluster;
  readonly #random: Random;
  readonly #tables: string[] = [];
  readonly #databases: string[] = [];
  #made = 0;

  constructor(cluster: Cluster, random: Random) {
    this.#cluster = cluster;
    this.#random = random;
  }

  /** Makes two tablespaces and some tables. */
  async begin(): Promise<void> {
    for (const name of ["near", "far"]) {
      const directory = await this.#cluster.makeDirectory(name);
      await this.#cluster.query(`CREATE TABLESPACE ${name} LOCATION '${directory}'`);
    }
    for (let count = 0; count < 4; count += 1) await this.#createTable();
  }

  async change(count: number): Promise<void> {
    for (let done = 0; done < count; done += 1) await this.#changeOnce();
  }

  async #changeOnce(): Promise<void> {
    const chance = this.#random.next();
    if (chance < 0.04) return await this.#createDatabase();
    if (chance < 0.08) return await this.#dropDatabase();
    if (chance < 0.16 || this.#tables.length === 0) return await this.#createTable();
    const table = this.#pick(this.#tables);
    if (chance < 0.22) {
      this.#tables.splice(this.#tables.indexOf(table), 1);
      await this.#cluster.query(`DROP TABLE ${table}`);
      return;
    }
    const rest = this.#number(1, 9);
    await this.#cluster.query(
      this.#pick([
        `INSERT INTO ${table} SELECT n, repeat('i', n % 400) FROM generate_series(1, ${rest * 300}) n`,
        `INSERT INTO ${table} SELECT n, repeat('j', 20) FROM generate_series(1, ${rest}) n`,
        `UPDATE ${table} SET name = name || 'u' WHERE id % ${rest * 20} = 0`,
        `UPDATE ${table} SET id = id + 1 WHERE id % ${rest * 5} = 0`,
        `DELETE FROM ${table} WHERE id % ${rest} = 0`,
        `DELETE FROM ${table} WHERE ctid > '(${rest}, 0)'`,
        `VACUUM ${table}`,
        `VACUUM ${table}`,
        `VACUUM FREEZE ${table}`,
        `VACUUM FULL ${table}`,
        `TRUNCATE ${table}`,
        `REINDEX TABLE ${table}`,
        `CLUSTER ${table} USING ${table}_index`,
        `ALTER TABLE ${table} SET TABLESPACE ${this.#tablespace()}`,
        `BEGIN; TRUNCATE ${table}; INSERT INTO ${table} VALUES (1, 'x'); ROLLBACK`,
        `BEGIN; CREATE TABLE undone AS SELECT * FROM ${table}; ROLLBACK`,
        `SELECT count(*) FROM ${table} WHERE id = 5`,
        "CHECKPOINT",
      ]),
    );
  }

  async #createTable(): Promise<void> {
    this.#made += 1;
    const table = `made_${this.#made}`;
    const kind = this.#pick(["btree", "hash", "brin"]);
    await this.#cluster.query(
      `CREATE TABLE ${table} (id int, name text) TABLESPACE ${this.#tablespace()};
       INSERT INTO ${table} SELECT n, repeat('c', 100) FROM generate_series(1, ${this.#number(0, 3000)}) n;
       CREATE INDEX ${table}_index ON ${table} (id);
       CREATE INDEX ON ${table} USING ${kind} (id)`,
    );
    this.#tables.push(table);
  }

  async #createDatabase(): Promise<void> {
    this.#made += 1;
    const name = `base_${this.#made}`;
    const strategy =
      this.#cluster.major >= 15 ? `STRATEGY ${this.#pick(["wal_log", "file_copy"])}` : "";
    await this.#cluster.query(
      `CREATE DATABASE ${name} ${strategy} TABLESPACE ${this.#tablespace()}`,
    );
    this.#databases.push(name);
  }

  async #dropDatabase(): Promise<void> {
    const name = this.#databases.pop();
    if (name === undefined) return;
    if (this.#random.next() < 0.5) {
      await this.#cluster.query(`ALTER DATABASE ${name} SET TABLESPACE ${this.#tablespace()}`);
      this.#databases.push(name);
    } else {
      await this.#cluster.query(`DROP DATABASE ${name}`);
    }
  }

  #tablespace(): string {
    return this.#pick(["pg_default", "near", "far"]);
  }

  #number(min: number, max: number): number {
    return min + Math.floor(this.#random.next() * (max - min + 1));
  }

  #pick<T>(items: readonly T[]): T {
    const item = items[Math.floor(this.#random.next() * items.length)];
    if (item === undefined) throw new Error("nothing to pick from");
    return item;
  }
}
