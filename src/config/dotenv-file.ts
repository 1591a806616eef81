import { FormatError } from "../errors.ts";

const KEY = /^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*[=:][ \t]*/;
const VARIABLE = /(?<!\\)\$(?:\{|[A-Za-z_])/;

/**
 * KEY=VALUE lines, as shells and container tools write them: "export" before the key, # comments,
 * single quotes (literal) and double quotes (\n, \r, \t, \", \\, \$), both over several lines. Of
 * equal keys the last one counts.
 *
 * Variables are not replaced; a value that seems to hold one is refused, because half of the tools
 * would replace it and a secret would silently be another one. Throws FormatError with the line.
 */
export function parseDotenv(source: string): Map<string, string> {
  const members = new Map<string, string>();
  const lines = source.replace(/^\uFEFF/, "").split(/\r?\n/);
  for (let index = 0; index < lines.length; index += 1) {
    const line = lines[index] ?? "";
    if (/^[ \t]*(#|$)/.test(line)) continue;
    const match = KEY.exec(line);
    if (match?.[1] === undefined) throw new FormatError(`line ${index + 1}: expected KEY=VALUE`);

    const startLine = index + 1;
    let value = line.slice(match[0].length);
    const quote = value[0];
    if (quote === '"' || quote === "'") {
      const quoted = quote === '"' ? /^"((?:[^"\\]|\\.)*)"(.*)$/s : /^'([^']*)'(.*)$/s;
      while (!quoted.test(value)) {
        index += 1;
        const next = lines[index];
        if (next === undefined) throw new FormatError(`line ${startLine}: quote is not closed`);
        value += `\n${next}`;
      }
      const [, inside = "", rest = ""] = quoted.exec(value) ?? [];
      if (!/^[ \t]*(#.*)?$/.test(rest)) {
        throw new FormatError(`line ${index + 1}: text after the closing quote`);
      }
      members.set(match[1], quote === '"' ? unescape(inside, startLine) : inside);
    } else {
      const plain = value.replace(/(^|[ \t])#.*$/, "").trim();
      rejectVariable(plain, startLine);
      members.set(match[1], plain);
    }
  }
  return members;
}

function unescape(inside: string, line: number): string {
  rejectVariable(inside, line);
  const control: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t" };
  return inside.replace(/\\([nrt"\\$])/g, (_, letter: string) => control[letter] ?? letter);
}

function rejectVariable(value: string, line: number): void {
  if (VARIABLE.test(value)) {
    throw new FormatError(
      `line ${line}: variables are not replaced; put a value with $ in single quotes`,
    );
  }
}
