import { defaulted, setting } from "./setting.ts";
import { boolean, bytes, choice, integer, path, secret, text } from "./value-types.ts";

const ANY = { form: "any" } as const;
const MIB = 1024 * 1024;

/** Where the repository is, and how to get there. */
export const storage = {
  filePrefix: setting(
    "FILE_PREFIX",
    path,
    "Store in this directory, which must exist: an absolute path, also as file://localhost/path.",
  ),

  s3Prefix: setting("S3_PREFIX", text, "Store in S3: s3://bucket/folder."),
  accessKeyId: setting("AWS_ACCESS_KEY_ID", text, "Access key.", {
    ...ANY,
    aliases: ["AWS_ACCESS_KEY"],
  }),
  secretAccessKey: setting("AWS_SECRET_ACCESS_KEY", secret, "Secret of the access key.", {
    ...ANY,
    aliases: ["AWS_SECRET_KEY"],
  }),
  sessionToken: setting("AWS_SESSION_TOKEN", secret, "Token of temporary credentials.", ANY),
  profile: setting("AWS_PROFILE", text, "Profile in the SDK's shared configuration.", ANY),
  roleArn: setting("AWS_ROLE_ARN", text, "Role to assume.", ANY),
  roleSessionName: setting("AWS_ROLE_SESSION_NAME", text, "Name of the role's session.", ANY),
  region: setting("AWS_REGION", text, "Region of the bucket.", ANY),
  endpoint: setting("AWS_ENDPOINT", text, "URL of a store that is not AWS's own.", ANY),
  forcePathStyle: defaulted(
    "AWS_S3_FORCE_PATH_STYLE",
    boolean,
    "Name the bucket in the path of the URL, not in the host.",
    { ...ANY, default: "false" },
  ),
  dualStack: defaulted("AWS_DUAL_STACK", boolean, "Use endpoints that speak IPv6, too.", {
    ...ANY,
    default: "false",
  }),
  caFile: setting("S3_CA_CERT_FILE", path, "File of PEM certificates to trust for S3.", ANY),
  caBundle: setting("AWS_CA_BUNDLE", path, "The same, where that is not set.", { form: "plain" }),
  storageClass: setting("S3_STORAGE_CLASS", text, "Storage class of new objects.", ANY),
  sse: setting(
    "S3_SSE",
    choice(["AES256", "aws:kms", "aws:kms:dsse"]),
    "Encryption by the store.",
    ANY,
  ),
  sseKmsKeyId: setting("S3_SSE_KMS_ID", text, "Key for S3_SSE=aws:kms.", ANY),
  sseCustomerKey: setting("S3_SSE_C", secret, "Key of 32 bytes for SSE-C.", ANY),
  retentionPeriod: setting(
    "S3_RETENTION_PERIOD",
    integer(-1),
    "Seconds for which the store keeps each new object from being removed (object lock); the bucket " +
      "must have that turned on. 0 and -1: not at all.",
    { ...ANY, unit: "seconds" },
  ),
  retentionMode: defaulted(
    "S3_RETENTION_MODE",
    choice(["GOVERNANCE", "COMPLIANCE"]),
    "Who can remove an object before: with GOVERNANCE who has the right to, with COMPLIANCE nobody.",
    { ...ANY, default: "GOVERNANCE" },
  ),
  requesterPays: defaulted(
    "S3_REQUESTER_PAYS",
    boolean,
    "Pay for the requests to a bucket of somebody else who asks for that.",
    { form: "own", default: "false" },
  ),
  tags: setting(
    "S3_TAGS",
    text,
    "Tags of new objects: key=value&key=value, escaped as in URLs; at most ten.",
    { form: "own" },
  ),
  requestHeaders: setting(
    "S3_REQUEST_ADDITIONAL_HEADERS",
    secret,
    'Headers of every request: {"name": "value"}, or lines of name: value.',
    ANY,
  ),
  maxPartSize: defaulted(
    "S3_MAX_PART_SIZE",
    bytes(5 * MIB),
    "Size of the parts of large objects; grows with the object so that 10,000 parts are enough.",
    { ...ANY, default: "20971520", unit: "bytes" },
  ),
  useListObjectsV1: defaulted(
    "S3_USE_LIST_OBJECTS_V1",
    boolean,
    "List with the first version of the call, for stores without the second.",
    { ...ANY, default: "false" },
  ),
  deleteBatchSize: defaulted(
    "S3_DELETE_BATCH_SIZE",
    integer(1, 1000),
    "Objects that one request deletes.",
    { ...ANY, default: "1000" },
  ),
} as const;
