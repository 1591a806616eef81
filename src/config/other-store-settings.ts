import { type Effect, type Setting, type SettingType, setting } from "./setting.ts";
import { boolean, bytes, duration, integer, secret, text } from "./value-types.ts";

const WAY_OUT =
  "walnut does not speak Alibaba's own protocol; reach the bucket by OSS's S3 interface " +
  "(WALG_S3_PREFIX, AWS_ENDPOINT) or by rclone (WALG_RCLONE_PREFIX)";
const UNUSED: Effect = { kind: "none", reason: "walnut does not speak Alibaba's own protocol" };

function store(name: string, about: string): Setting<string> {
  return setting(name, text, about, { effect: { kind: "refused", reason: WAY_OUT } });
}

/** The same names as in WAL-G: bare, or with a prefix. */
function key<T>(name: string, type: SettingType<T>, about: string): Setting<T> {
  return setting(name, type, about, { form: "any", effect: UNUSED });
}

/** Prefixes of the stores that are known but not built: each is refused, none is passed over. */
export const otherStorePrefixes: readonly Setting[] = [
  store("OSS_PREFIX", "Store in Alibaba's OSS: oss://bucket/folder."),
];

/** Settings of the stores that are known but not built. */
export const otherStoreSettings: readonly Setting[] = [
  ...otherStorePrefixes,

  key("OSS_ACCESS_KEY_ID", text, "Access key."),
  key("OSS_ACCESS_KEY_SECRET", secret, "Its secret."),
  key("OSS_SESSION_TOKEN", secret, "Token of temporary credentials."),
  key("OSS_REGION", text, "Region of the bucket."),
  key("OSS_ENDPOINT", text, "URL of the store."),
  key("OSS_ROLE_ARN", text, "Role to assume."),
  key("OSS_ROLE_SESSION_NAME", text, "Name of the role's session."),
  key("OSS_MAX_RETRIES", integer(0), "How often a request is repeated."),
  key("OSS_CONNECT_TIMEOUT", duration({ minMs: 0, plainUnit: "s" }), "Time limit to connect."),
  key("OSS_UPLOAD_PART_SIZE", bytes(1), "Size of the parts of large objects."),
  key("OSS_COPY_PART_SIZE", bytes(1), "Size of the parts of large copies."),
  key("OSS_SKIP_VALIDATION", boolean, "Leave out the check of the bucket."),
];
