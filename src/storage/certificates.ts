import { readFile } from "node:fs/promises";
import { localFileError } from "../io/system-error.ts";

/** PEM certificates of a file; undefined without a path. Rejects with LocalFileError. */
export async function readCertificates(path: string | undefined): Promise<string | undefined> {
  if (path === undefined) return undefined;
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw localFileError("read the certificates in", path, error);
  }
}
