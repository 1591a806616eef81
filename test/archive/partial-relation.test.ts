import assert from "node:assert/strict";
import { test } from "node:test";
import { fc } from "../support/property.ts";
import { relatePartial } from "../../src/archive/partial-relation.ts";

test("a partial may be replaced only by one with all its records", () => {
  const place = fc.integer({ min: 0, max: 100 });
  fc.assert(
    fc.property(place, place, fc.option(place, { nil: undefined }), (storedEnd, otherEnd, at) => {
      const relation = relatePartial({ differsAt: at, storedEnd, otherEnd });
      const hasAllRecords = at === undefined || at >= storedEnd;
      assert.equal(relation === "same" || relation === "covered", hasAllRecords);
      if (relation === "ahead") assert.ok(otherEnd < storedEnd);
    }),
  );
});
