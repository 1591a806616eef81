import type { Cluster } from "./postgres.ts";

/** The digests of the tables that `wanted` names ("database.schema.table"), as a fixture has them. */
export async function tableDigests(
  cluster: Cluster,
  wanted: Readonly<Record<string, string>>,
): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const name of Object.keys(wanted)) {
    const [database, schema, table] = name.split(".");
    found[name] = await cluster.value(
      `select count(*) || ':' || coalesce(
         md5(string_agg(t::text, E'\\n' order by t::text collate "C")), '') from ${schema}.${table} t`,
      database,
    );
  }
  return found;
}
