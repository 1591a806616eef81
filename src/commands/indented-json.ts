/**
 * The same JSON text with a line for each member and item, indented by `indent`. `text` is compact
 * and right; numbers keep all their digits, which reading and writing it would not promise.
 */
export function indentJson(text: string, indent: string): string {
  let result = "";
  let depth = 0;
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^"{}[\],:]+/gs)) {
    if (token === "}" || token === "]") {
      depth -= 1;
      const isEmpty = result.endsWith("{") || result.endsWith("[");
      result += isEmpty ? token : `\n${indent.repeat(depth)}${token}`;
      continue;
    }
    const isFirst = result.endsWith("{") || result.endsWith("[");
    if (isFirst) result += `\n${indent.repeat(depth)}`;
    if (token === "{" || token === "[") depth += 1;
    if (token === ",") result += `,\n${indent.repeat(depth)}`;
    else result += token === ":" ? ": " : token;
  }
  return result;
}
