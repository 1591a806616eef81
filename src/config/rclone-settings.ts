import { defaulted, setting } from "./setting.ts";
import { path, secret, text } from "./value-types.ts";

/** Whatever rclone reaches. */
export const rclone = {
  prefix: setting(
    "RCLONE_PREFIX",
    text,
    "Store in one of the remotes of rclone, which must be installed: rclone:remote:path.",
  ),
  configFile: setting(
    "RCLONE_CONFIG",
    path,
    "Configuration of rclone's remotes; where rclone looks by itself unless given.",
    { form: "plain" },
  ),
  configBase64: setting(
    "RCLONE_CONF_BASE64",
    secret,
    "Content of such a file as base64, for places without files. Logins that rclone renews are not kept.",
    { form: "any" },
  ),
  program: defaulted("RCLONE_PROGRAM", path, "The program.", { form: "own", default: "rclone" }),
} as const;
