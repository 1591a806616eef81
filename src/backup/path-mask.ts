import { UsageError } from "../errors.ts";

/**
 * Test for paths below the data directory by a pattern of `--mask`: "*" and "?" match all but "/",
 * "[a-z]" and "[^a-z]" one character of a class, "\\" takes away a meaning. The whole path has to
 * match; a "/" in front makes no difference. Throws UsageError for a pattern that can't be read.
 *
 * @source filepath.Match, Go's path/filepath
 */
export function parsePathMask(pattern: string): (path: string) => boolean {
  const text = pattern.replace(/^\/+/, "");
  let expression = "";
  let at = 0;
  while (at < text.length) {
    const character = text[at] ?? "";
    if (character === "[") {
      const { source, end } = parseClass(pattern, text, at);
      expression += source;
      at = end;
      continue;
    }
    if (character === "*") expression += "[^/]*";
    else if (character === "?") expression += "[^/]";
    else if (character === "\\") {
      at += 1;
      if (at >= text.length) throw unreadable(pattern);
      expression += literal(text[at] ?? "");
    } else expression += literal(character);
    at += 1;
  }
  const whole = new RegExp(`^${expression}$`, "s");
  return (path) => whole.test(path);
}

function parseClass(
  pattern: string,
  text: string,
  start: number,
): { readonly source: string; readonly end: number } {
  let at = start + 1;
  const isNegated = text[at] === "^";
  if (isNegated) at += 1;
  let ranges = "";
  for (let isFirst = true; isFirst || text[at] !== "]"; isFirst = false) {
    const low = classCharacter(pattern, text, at);
    at = low.end;
    let high = low;
    if (text[at] === "-") {
      high = classCharacter(pattern, text, at + 1);
      at = high.end;
    }
    if (high.character < low.character) throw unreadable(pattern);
    ranges += `${literal(low.character)}-${literal(high.character)}`;
  }
  return { source: `(?!/)[${isNegated ? "^" : ""}${ranges}]`, end: at + 1 };
}

function classCharacter(
  pattern: string,
  text: string,
  at: number,
): { readonly character: string; readonly end: number } {
  const isEscaped = text[at] === "\\";
  const character = text[isEscaped ? at + 1 : at];
  const isWrong =
    character === undefined || (!isEscaped && (character === "-" || character === "]"));
  if (isWrong) throw unreadable(pattern);
  return { character, end: at + (isEscaped ? 2 : 1) };
}

function literal(character: string): string {
  return /[\w/]/.test(character) ? character : `\\u${codeUnit(character)}`;
}

function codeUnit(character: string): string {
  return character.charCodeAt(0).toString(16).padStart(4, "0");
}

function unreadable(pattern: string): UsageError {
  return new UsageError(`mask ${JSON.stringify(pattern)} is not a pattern`, {
    hint: 'A pattern knows *, ?, [a-z], [^a-z] and \\ before a character: "base/1/*".',
  });
}
