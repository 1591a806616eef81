/**
 * What a store says of an object's bytes, in its own way: kind and hex digits, such as "md5:09ab…".
 *
 * - "md5": of the whole object; also an S3 ETag that only looks like one (encrypted by the store).
 * - "parts": an S3 ETag of an object that was put in parts, with their count at its end.
 * - "crc32c": where there is no better one.
 *
 * So equal sums prove something, and unequal ones only raise the question.
 */
export type ObjectSum = `${"md5" | "parts" | "crc32c"}:${string}`;

/** Of an ETag with or without quotes; undefined where it is none of the bytes. */
export function sumOfEtag(etag: string | undefined): ObjectSum | undefined {
  const text = etag?.replaceAll('"', "").toLowerCase() ?? "";
  if (/^[0-9a-f]{32}$/.test(text)) return `md5:${text}`;
  return /^[0-9a-f]{32}-\d{1,5}$/.test(text) ? `parts:${text}` : undefined;
}

/** Of what HTTP headers and JSON hold in base64; undefined for what is not of that length. */
export function sumOfBase64(kind: "md5" | "crc32c", text: unknown): ObjectSum | undefined {
  const bytes = Buffer.from(typeof text === "string" ? text : "", "base64");
  return bytes.length === (kind === "md5" ? 16 : 4)
    ? `${kind}:${bytes.toString("hex")}`
    : undefined;
}

/** A member for an ObjectInfo. */
export function withSum(sum: ObjectSum | undefined): { readonly sum?: ObjectSum } {
  return sum === undefined ? {} : { sum };
}

/** Whether two objects of the same size have the same bytes for certain, as far as stores tell. */
export function isSameSum(one: ObjectSum | undefined, other: ObjectSum | undefined): boolean {
  return one !== undefined && one === other && !one.startsWith("crc32c:");
}
