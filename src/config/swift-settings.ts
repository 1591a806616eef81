import { defaulted, setting } from "./setting.ts";
import { bytes, path, secret, text } from "./value-types.ts";

const ANY = { form: "any" } as const;
const MIB = 1024 * 1024;

/** A container of OpenStack's object store. Names as for OpenStack's own tools. */
export const swift = {
  prefix: setting("SWIFT_PREFIX", text, "Store in OpenStack's Swift: swift://container/folder."),
  authUrl: setting("OS_AUTH_URL", text, "URL of the identity service.", ANY),
  identityVersion: setting(
    "OS_IDENTITY_API_VERSION",
    text,
    "Version of the identity service: 3, or 1 for Swift's own logins; told by OS_AUTH_URL unless given.",
    ANY,
  ),
  username: setting("OS_USERNAME", text, "User.", ANY),
  userId: setting("OS_USER_ID", text, "User by id.", ANY),
  password: setting("OS_PASSWORD", secret, "Password.", ANY),
  userDomainName: setting("OS_USER_DOMAIN_NAME", text, "Domain of the user.", ANY),
  userDomainId: setting("OS_USER_DOMAIN_ID", text, "Domain of the user by id.", ANY),
  projectName: setting("OS_PROJECT_NAME", text, "Project.", {
    ...ANY,
    aliases: ["OS_TENANT_NAME"],
  }),
  projectId: setting("OS_PROJECT_ID", text, "Project by id.", {
    ...ANY,
    aliases: ["OS_TENANT_ID"],
  }),
  projectDomainName: setting("OS_PROJECT_DOMAIN_NAME", text, "Domain of the project.", ANY),
  projectDomainId: setting("OS_PROJECT_DOMAIN_ID", text, "Domain of the project by id.", ANY),
  domainName: setting("OS_DOMAIN_NAME", text, "Domain, in place of a project.", ANY),
  domainId: setting("OS_DOMAIN_ID", text, "Domain by id, in place of a project.", ANY),
  trustId: setting("OS_TRUST_ID", text, "Trust, in place of a project.", ANY),
  applicationCredentialId: setting(
    "OS_APPLICATION_CREDENTIAL_ID",
    text,
    "Application credential, in place of user, password and project.",
    ANY,
  ),
  applicationCredentialName: setting(
    "OS_APPLICATION_CREDENTIAL_NAME",
    text,
    "Application credential of the user.",
    ANY,
  ),
  applicationCredentialSecret: setting(
    "OS_APPLICATION_CREDENTIAL_SECRET",
    secret,
    "Its secret.",
    ANY,
  ),
  authToken: setting(
    "OS_AUTH_TOKEN",
    secret,
    "Token that somebody else got, with OS_STORAGE_URL; it can't be renewed.",
    ANY,
  ),
  storageUrl: setting(
    "OS_STORAGE_URL",
    text,
    "URL of the store, in place of the catalogue's.",
    ANY,
  ),
  region: setting("OS_REGION_NAME", text, "Region.", ANY),
  endpointType: defaulted(
    "OS_ENDPOINT_TYPE",
    text,
    "Which of the store's endpoints: public, internal or admin.",
    { ...ANY, default: "public", aliases: ["OS_INTERFACE"] },
  ),
  caFile: setting("OS_CACERT", path, "File of PEM certificates to trust for Swift.", ANY),
  maxPartSize: defaulted(
    "SWIFT_MAX_PART_SIZE",
    bytes(5 * MIB),
    "Size of the segments of large objects; grows with the object so that 1,000 are enough.",
    { form: "own", default: "20971520", unit: "bytes" },
  ),
} as const;
