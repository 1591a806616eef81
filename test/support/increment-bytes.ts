/** An increment as WAL-G stores it: `pages` by block number, for a file of `fileBytes`. */
export function incrementBytes(
  fileBytes: number,
  pages: readonly (readonly [block: number, page: Uint8Array])[],
): Buffer {
  const head = Buffer.alloc(16 + 4 * pages.length);
  head.set([0x77, 0x69, 0x31, 0x55]);
  head.writeBigUInt64LE(BigInt(fileBytes), 4);
  head.writeUInt32LE(pages.length, 12);
  for (const [index, [block]] of pages.entries()) head.writeUInt32LE(block, 16 + 4 * index);
  return Buffer.concat([head, ...pages.map(([, page]) => page)]);
}
