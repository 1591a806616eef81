import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** A row of a table of members in the documentation. */
interface Member {
  /** "time", "list of text", ...; of a text that is one of several words, these in backquotes. */
  readonly type: string;
  readonly isNullable: boolean;
  readonly mayBeAbsent: boolean;
}

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$/;
const LSN = /^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/;
const isText = (value: unknown): value is string => typeof value === "string";
const isObject = (value: unknown): value is object =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const CHECKS: Readonly<Record<string, (value: unknown) => boolean>> = {
  text: isText,
  number: (value) => Number.isSafeInteger(value),
  boolean: (value) => typeof value === "boolean",
  time: (value) => isText(value) && TIME.test(value),
  LSN: (value) => isText(value) && LSN.test(value),
  list: Array.isArray,
  object: isObject,
  "list of text": (value) => Array.isArray(value) && value.every(isText),
  "object of text": (value) => isObject(value) && Object.values(value).every(isText),
};

/** Holds what a command printed against the table of members that describes it. */
export class DescribedJson {
  readonly #members: ReadonlyMap<string, Member>;
  /** "member", "member = null" and "member absent" that did not occur yet. */
  readonly #missing: Set<string>;

  /** The first table with a column "member" behind the heading's text, in a page of docs/. */
  constructor(page: string, heading: string) {
    const rows = tableBehind(page, { heading, firstColumn: "member" });
    this.#members = new Map(rows.map(([member = "", type = ""]) => [member, parseType(type)]));
    this.#missing = new Set(
      [...this.#members].flatMap(([name, { isNullable, mayBeAbsent }]) => [
        name,
        ...(isNullable ? [`${name} = null`] : []),
        ...(mayBeAbsent ? [`${name} absent`] : []),
      ]),
    );
  }

  /** Throws if the text is not as it is described; remembers what occurred. */
  check(text: string): void {
    this.#checkMembers(JSON.parse(text), "");
  }

  /** What is documented and was in none of the texts. */
  get missing(): readonly string[] {
    return [...this.#missing];
  }

  #checkMembers(value: object, prefix: string): void {
    const names = new Set(Object.keys(value).map((name) => `${prefix}${name}`));
    for (const [name, member] of Object.entries(value)) {
      this.#checkMember(member, `${prefix}${name}`);
    }
    for (const [name, { mayBeAbsent }] of this.#members) {
      const isOwn = name.startsWith(prefix) && !/[.[]/.test(name.slice(prefix.length));
      if (!isOwn || names.has(name)) continue;
      assert.ok(mayBeAbsent, `${name} is not printed`);
      this.#missing.delete(`${name} absent`);
    }
  }

  #checkMember(value: unknown, name: string): void {
    const member = this.#members.get(name);
    assert.ok(member !== undefined, `${name} is printed and not documented`);
    if (value === null) {
      assert.ok(member.isNullable, `${name} is null`);
      this.#missing.delete(`${name} = null`);
      return;
    }
    this.#missing.delete(name);
    assert.ok(isOfType(value, member.type), `${name}: ${JSON.stringify(value)} as ${member.type}`);
    if (member.type === "object" && isObject(value)) this.#checkMembers(value, `${name}.`);
    if (member.type !== "list" || !Array.isArray(value)) return;
    for (const item of value) this.#checkMembers(item, `${name}[].`);
  }
}

/** Cells of the rows of a table in docs/, without the backquotes around a whole cell. */
export function tableBehind(
  page: string,
  { heading, firstColumn }: { readonly heading: string; readonly firstColumn: string },
): readonly (readonly string[])[] {
  const root = join(import.meta.dirname, "..", "..");
  const lines = readFileSync(join(root, "docs", page), "utf8").split("\n");
  const from = lines.findIndex((line) => line.includes(heading));
  const head = lines.findIndex((line, at) => at >= from && line.startsWith(`| ${firstColumn} |`));
  assert.ok(from >= 0 && head >= 0, `${page} has a table behind ${heading}`);
  const rows = lines.slice(head + 2);
  const end = rows.findIndex((line) => !line.startsWith("|"));
  return rows.slice(0, end).map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim().replace(/^`([^`]*)`$/, "$1")),
  );
}

function parseType(cell: string): Member {
  const [, type = cell, rest] = /^(.*?)(?: or (null|absent))?$/.exec(cell) ?? [];
  return { type, isNullable: rest === "null", mayBeAbsent: rest === "absent" };
}

function isOfType(value: unknown, type: string): boolean {
  const check = CHECKS[type];
  if (check !== undefined) return check(value);
  const words = [...type.matchAll(/`([^`]+)`/g)].map(([, word]) => word);
  assert.ok(words.length > 1, `the type ${type} is not one of ${Object.keys(CHECKS).join(", ")}`);
  return words.some((word) => word === value);
}
