import { headerKeyId } from "./libsodium-header.ts";
import { recipientKeyIds } from "./openpgp-recipients.ts";

/** How content begins that is only compressed, by the extension of its object. */
const MAGICS: ReadonlyMap<string, RegExp> = new Map([
  ["zst", /^(28b52ffd|5.2a4d18)/],
  ["lz4", /^(04224d18|02214c18|5.2a4d18)/],
  ["gz", /^1f8b/],
  ["lzma", /^5d0000/],
  ["lzo", /^894c5a4f/],
]);
const MAGIC_BYTES = 4;

const TAR_MAGIC_AT = 257;
const WAL_NAME = /(^|\/)[0-9A-F]{24}(\.partial)?\.?$/;

/**
 * Whether an object of this name begins like one that is not encrypted; undefined where nothing can
 * be said about it. An encrypted one looks so once in 65,000 at most.
 */
export function looksPlain(name: string, head: Buffer): boolean | undefined {
  if (head.length === 0) return undefined;
  const extension = /\.([a-z0-9]+)$/.exec(name)?.[1] ?? "";
  const magic = MAGICS.get(extension);
  if (magic !== undefined) return magic.test(head.toString("hex", 0, MAGIC_BYTES));
  return looksUncompressed(name, head) ? true : undefined;
}

function looksUncompressed(name: string, head: Buffer): boolean {
  if (WAL_NAME.test(name)) return startsLikeWal(head);
  if (/\.tar\.?$/.test(name)) {
    return head.toString("latin1", TAR_MAGIC_AT, TAR_MAGIC_AT + 5) === "ustar";
  }
  return /\.(history|backup)\.?$/.test(name) && head.every((byte) => byte >= 9 && byte < 127);
}

/** A page's magic number and flags. @source XLOG_PAGE_MAGIC, XLP_ALL_FLAGS */
function startsLikeWal(head: Buffer): boolean {
  return head.length >= 4 && head[1] === 0xd1 && (head.readUInt16LE(2) & 0xfff0) === 0;
}

/** What an object that we have no key for says about how it is encrypted. */
export function describeEncryption(head: Buffer): string | undefined {
  const recipients = recipientKeyIds(head);
  if (recipients.length > 0) return `with OpenPGP for key ${recipients.join(", ")}`;
  const id = headerKeyId(head);
  return id === undefined ? undefined : `with libsodium and the key of id ${id}`;
}
