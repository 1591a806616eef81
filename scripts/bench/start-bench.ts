import { compare, formatTable } from "./figures.ts";
import { measure } from "./process.ts";

/** What a call costs before it does anything. */
export async function startTable(binary: string, cwd: string): Promise<string> {
  const rows = await compare(
    [
      { name: "walnut --version", run: () => measure([binary, "--version"], { cwd }) },
      { name: "pgbackrest version", run: () => measure(["pgbackrest", "version"], { cwd }) },
      { name: "sh -c true", run: () => measure(["sh", "-c", "true"], { cwd }) },
    ],
    30,
  );
  return formatTable("Start", rows);
}
