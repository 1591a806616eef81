import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { pageChecksum } from "../../src/postgres/data-page.ts";
import { PageChecksums } from "../../src/postgres/page-checksums.ts";
import { seededRandom } from "../support/random.ts";

const PAGE = 8192;

function randomPages(count: number, firstBlock: number): Buffer {
  const random = seededRandom();
  const pages = Buffer.alloc(count * PAGE);
  for (let at = 0; at < pages.length; at += 4) {
    pages.writeUInt32LE(Math.floor(random.next() * 2 ** 32), at);
  }
  for (let index = 0; index < count; index += 1) {
    const page = pages.subarray(index * PAGE, (index + 1) * PAGE);
    page.writeUInt16LE(pageChecksum(page, firstBlock + index), 8);
  }
  return pages;
}

test("this machine runs the module: it is several times as fast as JavaScript", async () => {
  const made = await PageChecksums.create();
  assert.equal(made.isFast, true);
  assert.equal(PageChecksums.inJavaScript().isFast, false);
});

for (const kind of ["WebAssembly", "JavaScript"] as const) {
  test(`finds exactly the wrong pages: ${kind}`, async () => {
    const sums =
      kind === "JavaScript" ? PageChecksums.inJavaScript() : await PageChecksums.create();
    const firstBlock = 131_072 * 3 + 17;
    const pages = randomPages(150, firstBlock);
    const wrong = (): number[] => {
      const found: number[] = [];
      sums.findWrong(pages, firstBlock, (index) => found.push(index));
      return found;
    };
    assert.deepEqual(wrong(), []);
    fc.assert(
      fc.property(fc.nat(149), fc.nat(PAGE * 8 - 1), (index, bit) => {
        const at = index * PAGE + (bit >> 3);
        pages[at] = (pages[at] ?? 0) ^ (1 << (bit & 7));
        assert.deepEqual(wrong(), [index]);
        pages[at] = (pages[at] ?? 0) ^ (1 << (bit & 7));
      }),
      { numRuns: 30 },
    );
    const found: number[] = [];
    sums.findWrong(pages.subarray(0, PAGE), firstBlock + 1, (index) => found.push(index));
    assert.deepEqual(found, [0], "at another place it is wrong");
    sums.findWrong(pages.subarray(0, 0), 0, () => assert.fail("there is no page"));
  });
}
