import type { ManifestFile, ManifestUnchanged } from "./manifest.ts";

const TEXT = String.raw`"([^"\\\u0000-\u001f]+)"`;
/** Below 10^15: exact in a number. */
const COUNT = String.raw`(0|[1-9]\d{0,14})`;
const MODE = String.raw`(0|[1-9]\d{0,2}|[1-3]\d{3}|40[0-8]\d|409[0-5])`;
const TIME = String.raw`"(0|-?[1-9]\d{0,18})"`;
const HASH = '"([0-9a-f]{16}|[0-9a-f]{64})"';
const CONTENT = `${TEXT},"size":${COUNT},"mode":${MODE},"mtime":${TIME}`;
const PLACE = `"part":${TEXT},"at":${COUNT}`;
const FILE = new RegExp(
  `^\\{"file":${CONTENT},"hash":${HASH},${PLACE}(?:,"full":${COUNT})?(?:,"bad":${COUNT})?\\}$`,
);
const UNCHANGED = new RegExp(`^\\{"same":${CONTENT}(?:,"hash":${HASH})?\\}$`);

/**
 * Reads the lines of which a manifest has a million, several times as fast as JSON.parse and the
 * look whether it is written as we write it: what fits is. Undefined for every other line, right or
 * wrong. `text` is well-formed; hashes have `hashDigits`.
 */
export function parseRow(
  text: string,
  hashDigits: number,
): ManifestFile | ManifestUnchanged | undefined {
  if (text.startsWith('{"file"')) return parseFile(text, hashDigits);
  return text.startsWith('{"same"') ? parseUnchanged(text, hashDigits) : undefined;
}

function parseFile(text: string, hashDigits: number): ManifestFile | undefined {
  const found = FILE.exec(text);
  if (found === null) return undefined;
  const [, name = "", size, mode, mtime = "", hash = "", part = "", at, full, bad] = found;
  if (hash.length !== hashDigits) return undefined;
  return {
    kind: "file",
    name,
    sizeBytes: Number(size),
    mode: Number(mode),
    mtimeNs: BigInt(mtime),
    hash,
    part,
    offsetBytes: Number(at),
    ...(full === undefined ? undefined : { fullBytes: Number(full) }),
    ...(bad === undefined ? undefined : { corruptPages: Number(bad) }),
  };
}

function parseUnchanged(text: string, hashDigits: number): ManifestUnchanged | undefined {
  const found = UNCHANGED.exec(text);
  if (found === null) return undefined;
  const [, name = "", size, mode, mtime = "", hash] = found;
  if (hash !== undefined && hash.length !== hashDigits) return undefined;
  return {
    kind: "unchanged",
    name,
    sizeBytes: Number(size),
    mode: Number(mode),
    mtimeNs: BigInt(mtime),
    ...(hash === undefined ? undefined : { hash }),
  };
}
