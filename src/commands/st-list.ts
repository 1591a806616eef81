import { ObjectNotFoundError } from "../errors.ts";
import { cleanPath, globPattern, listBelow, listFolder } from "../storage/folder.ts";
import { statIfThere } from "../storage/object-copy.ts";
import type { ObjectInfo } from "../storage/storage.ts";
import type { StorageTool } from "./st.ts";
import { formatPlainTable } from "./table.ts";
import { onePath, requirePositionals } from "./words.ts";

const HEADINGS = ["type", "size", "last modified", "name"];
/** Go's text of no time: folders have none. */
const NO_TIME = "0001-01-01 00:00:00 +0000 UTC";

/** `st ls`: always a header line; an absent folder is an empty one. */
export const listTool: StorageTool = async (words, context) => {
  const [given = ""] = requirePositionals(words, ["the path"], 1);
  const path = cleanPath(given);
  const { signal } = context;
  await using storage = await context.openStorage();
  const rows: (readonly string[])[] = [];
  if (words.has("glob")) {
    const pattern = globPattern(path);
    const fixed = /^[^*?[]*/.exec(path)?.[0] ?? "";
    for await (const info of storage.list(fixed, { signal })) {
      if (pattern.test(info.key)) rows.push(objectRow(info, info.key));
    }
  } else if (words.has("recursive")) {
    const skipped = path === "" ? 0 : path.length + 1;
    for await (const info of listBelow(storage, path, { signal })) {
      if (info.key !== path) rows.push(objectRow(info, info.key.slice(skipped)));
    }
  } else {
    const { folders, objects } = await listFolder(storage, path, { signal });
    for (const folder of folders) rows.push(["dir", "0", NO_TIME, folder]);
    for (const info of objects) rows.push(objectRow(info, info.key.split("/").at(-1) ?? ""));
  }
  await context.write(formatPlainTable(HEADINGS, rows));
};

/** `st stat` */
export const statTool: StorageTool = async (words, context) => {
  const path = cleanPath(onePath(words));
  const { signal } = context;
  await using storage = await context.openStorage();
  const info = await statIfThere(storage, path, { signal });
  if (info === undefined) throw new ObjectNotFoundError(path, storage.name);
  await context.write(formatPlainTable(HEADINGS, [objectRow(info, path)]));
};

function objectRow({ sizeBytes, modifiedAt }: ObjectInfo, name: string): readonly string[] {
  const time = modifiedAt
    .toISOString()
    .replace("T", " ")
    .replace(/\.000Z$|Z$/, "");
  return ["obj", String(sizeBytes), `${time} +0000 UTC`, name];
}
