import assert from "node:assert/strict";
import { test } from "node:test";
import { partiesText } from "../../src/layout/collision-note.ts";

test("tells whose two contents are, and of clusters only where they differ", () => {
  const parties = {
    archivedSystemId: "7",
    systemId: "7",
    archivedBy: "db1:/data",
    pushedBy: "db2:/data",
  };
  const cases = [
    [{}, "the timeline is written by db1:/data; brought by db2:/data"],
    // After take-over the timeline has the name of the one that complains.
    [{ archivedBy: "db2:/data" }, "both under the name of db2:/data"],
    [
      { systemId: "8" },
      "archived from cluster 7, timeline of db1:/data; brought from cluster 8 by db2:/data",
    ],
    [
      { archivedSystemId: undefined, archivedBy: undefined },
      "archived from cluster unknown, timeline of unknown; brought from cluster 7 by db2:/data",
    ],
  ] as const;
  for (const [changes, expected] of cases) {
    assert.equal(partiesText({ ...parties, ...changes }), expected);
  }
});
