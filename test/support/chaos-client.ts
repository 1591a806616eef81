import { Client } from "pg";
import { parseLsn } from "../../src/postgres/lsn.ts";
import type { Row } from "./chaos-line.ts";
import type { ChaosNode } from "./chaos-node.ts";
import { pause } from "./until.ts";

const COMMIT_LIMIT_MS = 4000;

/**
 * Writes rows, each by a commit of its own, until so many returned, one fails or takes too long;
 * adds all to `rows`, with what is known of them.
 */
export async function writeRows(
  { path, port }: ChaosNode,
  { count, rows, say }: { count: number; rows: Row[]; say: (text: string) => void },
): Promise<void> {
  const epoch = path.at(-1)?.epoch ?? 0;
  const client = new Client({ host: "127.0.0.1", port, user: "postgres", database: "postgres" });
  client.on("error", () => {});
  const ask = async (sql: string): Promise<string> => {
    const { rows } = await inTime(client.query<Record<string, unknown>>(sql));
    return String(Object.values(rows[0] ?? {})[0]);
  };
  try {
    await inTime(client.connect());
    let at = parseLsn(await ask("SELECT pg_current_wal_insert_lsn()"));
    for (let written = 0; written < count; written += 1) {
      const isSynced = (await ask("SHOW synchronous_standby_names")) === "walnut";
      const row: Row = { n: rows.length + 1, epoch, fromLsn: at, isSynced };
      rows.push(row);
      await ask("BEGIN");
      await ask(`INSERT INTO counted VALUES (${row.n})`);
      await ask(
        `INSERT INTO filler SELECT string_agg(md5(random()::text), '')
         FROM generate_series(1, ${row.n % 3 === 0 ? 9000 : 100}) AS g`,
      );
      await ask("COMMIT");
      at = parseLsn(await ask("SELECT pg_current_wal_insert_lsn()"));
      row.toLsn = at;
    }
  } catch (error) {
    // Nobody knows of the last one.
    say(`row ${rows.length}: ${String(error).slice(0, 100)}`);
  } finally {
    // A session that waits for the archive is not to be told that its commit returned.
    client.end().catch(() => {});
  }
}

async function inTime<T>(work: Promise<T>): Promise<T> {
  work.catch(() => {});
  const late = pause(COMMIT_LIMIT_MS).then(() => {
    throw new Error("too late");
  });
  late.catch(() => {});
  return await Promise.race([work, late]);
}
