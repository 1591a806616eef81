/**
 * Where tests get fast-check from: WALNUT_SEED, which a failure prints, decides what properties try
 * here as it does in `seededRandom`.
 */
import * as fc from "fast-check";

const wanted = process.env["WALNUT_SEED"];
if (wanted !== undefined) fc.configureGlobal({ ...fc.readConfigureGlobal(), seed: Number(wanted) });

export { fc };
