// Where the server under test is, and the two REST calls every suite needs.
const env = process.env;

export const origin = new URL(env.KV_URL);
export const restUrl = origin.origin + env.KV_REST_PATH;
export const account = env.KV_ACCOUNT_ID;
/** What the clients send, and whether the server asks for it. */
export const token = env.KV_API_TOKEN;
export const guarded = env.KV_GUARDED === "1";
export const nsHeader = env.KV_NS_HEADER;

export const uniqueTitle = (label) =>
  `clients-${label}-${Date.now()}-${Math.floor(Math.random() * 1e6)}`;

export async function rest(method, path, body) {
  const response = await fetch(`${restUrl}/accounts/${account}/storage/kv/namespaces${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const envelope = await response.json();
  if (!envelope.success) {
    throw new Error(`${method} ${path}: ${response.status} ${JSON.stringify(envelope.errors)}`);
  }
  return envelope.result;
}

/** Creates a namespace, passes its id to `use`, and deletes it afterwards. */
export async function withNamespace(label, use) {
  const { id } = await rest("POST", "", { title: uniqueTitle(label) });
  try {
    await use(id);
  } finally {
    await rest("DELETE", `/${id}`);
  }
}
