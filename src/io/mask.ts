/** Shorter secrets would take letters out of other words: they are masked as whole words only. */
const SHORTEST_PART_LENGTH = 4;

const MASK = "***";

/** A user and password in the host part of a URL. */
const URL_CREDENTIALS = /(?<=:\/\/)[^/@\s]+(?=@)/g;

/** A function that replaces every one of `secrets` in a text, also where it was escaped. */
export function createMask(secrets: readonly string[]): (text: string) => string {
  const forms = new Set(secrets.filter((secret) => secret !== "").flatMap(writtenForms));
  // Longer ones first: a secret may hold another one.
  const patterns = [...forms]
    .toSorted((one, other) => other.length - one.length)
    .map((form) => {
      const literal = form.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
      return form.length < SHORTEST_PART_LENGTH
        ? `(?<![A-Za-z0-9])${literal}(?![A-Za-z0-9])`
        : literal;
    });
  const pattern = patterns.length === 0 ? undefined : new RegExp(patterns.join("|"), "g");
  return (text) => {
    const masked = pattern === undefined ? text : text.replace(pattern, MASK);
    return masked.replace(URL_CREDENTIALS, MASK);
  };
}

function writtenForms(secret: string): readonly string[] {
  const inJson = JSON.stringify(secret).slice(1, -1);
  return [secret, inJson, JSON.stringify(inJson).slice(1, -1), encodeText(secret)];
}

/** encodeURIComponent throws for half of a surrogate pair. */
function encodeText(secret: string): string {
  return encodeURIComponent(secret.toWellFormed());
}
