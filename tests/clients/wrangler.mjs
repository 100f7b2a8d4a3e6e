// `wrangler kv ... --remote` with its API base URL pointed at the server under test.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { assert, check, finish } from "./lib/check.mjs";
import { account, rest, restUrl, token, uniqueTitle } from "./lib/server.mjs";

const bin = fileURLToPath(new URL("./node_modules/wrangler/bin/wrangler.js", import.meta.url));
const dir = mkdtempSync(join(tmpdir(), "kv-wrangler-"));

/** Runs wrangler; resolves to {code, stdout (bytes), text (stdout and stderr)}. */
function wrangler(...args) {
  const child = spawn(process.execPath, [bin, "kv", ...args], {
    cwd: dir,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      PATH: process.env.PATH,
      HOME: dir,
      CI: "1",
      NO_COLOR: "1",
      WRANGLER_SEND_METRICS: "false",
      CLOUDFLARE_API_BASE_URL: restUrl,
      CLOUDFLARE_API_TOKEN: token,
      CLOUDFLARE_ACCOUNT_ID: account,
    },
  });
  const out = [];
  const err = [];
  child.stdout.on("data", (chunk) => out.push(chunk));
  child.stderr.on("data", (chunk) => err.push(chunk));
  return new Promise((resolve) =>
    child.on("close", (code) => {
      const stdout = Buffer.concat(out);
      resolve({ code, stdout, text: stdout.toString() + Buffer.concat(err).toString() });
    }),
  );
}

async function succeeds(...args) {
  const result = await wrangler(...args);
  assert.equal(result.code, 0, `kv ${args.join(" ")}\n${result.text}`);
  return result;
}

async function fails(pattern, ...args) {
  const result = await wrangler(...args);
  assert.notEqual(result.code, 0, `kv ${args.join(" ")} succeeded`);
  assert.match(result.text, pattern);
}

const file = (name, content) => {
  writeFileSync(join(dir, name), content);
  return name;
};
const jsonFile = (name, value) => file(name, JSON.stringify(value));
const json = ({ stdout }) => JSON.parse(stdout.toString());

const title = uniqueTitle("wrangler");
let id;
const key = (command, ...args) => ["key", command, ...args, `--namespace-id=${id}`, "--remote"];
const bulk = (command, ...args) => ["bulk", command, ...args, `--namespace-id=${id}`, "--remote"];

try {
  await check("namespace create", async () => {
    const { text } = await succeeds("namespace", "create", title);
    id = /"id": "([0-9a-f]{32})"/.exec(text)?.[1];
    assert.ok(id, text);
  });
  await check("namespace create with a taken title", () =>
    fails(/already exists/, "namespace", "create", title));
  await check("namespace list", async () => {
    const found = json(await succeeds("namespace", "list")).find((namespace) => namespace.id === id);
    assert.equal(found.title, title);
  });
  await check("namespace rename", async () => {
    const { text } = await succeeds("namespace", "rename", title, `--new-name=${title}-b`);
    assert.ok(text.includes(`${title}-b`));
    assert.equal((await rest("GET", `/${id}`)).title, `${title}-b`);
  });
  await check("key put and get", async () => {
    await succeeds(...key("put", "greeting/1 %é", "hëllo"));
    assert.equal((await succeeds(...key("get", "greeting/1 %é", "--text"))).stdout.toString(), "hëllo\n");
  });
  await check("key put of a binary file", async () => {
    const content = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    await succeeds(...key("put", "binary", `--path=${file("value.bin", content)}`));
    assert.deepEqual((await succeeds(...key("get", "binary"))).stdout, content);
  });
  await check("key put with metadata and ttl", async () => {
    await succeeds(...key("put", "meta:1", "v", '--metadata={"a":[1,"é"]}', "--ttl=600"));
    await succeeds(...key("put", "meta:2", "v", "--expiration=4000000000"));
    const [first, second, ...rest] = json(await succeeds(...key("list", "--prefix=meta:")));
    assert.equal(rest.length, 0);
    assert.deepEqual(first.metadata, { a: [1, "é"] });
    assert.ok(Math.abs(first.expiration - Date.now() / 1000 - 600) < 30);
    assert.deepEqual(second, { name: "meta:2", expiration: 4000000000 });
    assert.equal((await succeeds(...key("get", "meta:1"))).stdout.toString(), "v");
  });
  await check("key put with a ttl below 60", () => fails(/expiration/i, ...key("put", "short", "v", "--ttl=30")));
  await check("key get of a missing key", () => fails(/404/, ...key("get", "missing")));
  await check("key delete", async () => {
    await succeeds(...key("delete", "binary"));
    await succeeds(...key("delete", "binary"));
    await fails(/404/, ...key("get", "binary"));
  });
  await check("bulk put of every kind of entry", async () => {
    const entries = [
      { key: "bulk:text", value: "plain" },
      { key: "bulk:bytes", value: Buffer.from([0, 255, 128]).toString("base64"), base64: true },
      { key: "bulk:meta", value: "m", metadata: { m: 1 }, expiration_ttl: 600 },
    ];
    await succeeds(...bulk("put", jsonFile("put.json", entries)));
    assert.deepEqual((await succeeds(...key("get", "bulk:bytes"))).stdout, Buffer.from([0, 255, 128]));
    const listed = json(await succeeds(...key("list", "--prefix=bulk:")));
    assert.deepEqual(listed.map(({ name }) => name), ["bulk:bytes", "bulk:meta", "bulk:text"]);
    assert.deepEqual(listed[1].metadata, { m: 1 });
  });
  await check("bulk get", async () => {
    const got = json(await succeeds(...bulk("get", jsonFile("get.json", ["bulk:text", { name: "none" }]))));
    assert.deepEqual(got, { "bulk:text": "plain", none: null });
  });
  await check("bulk put, list and delete across pages", async () => {
    const names = Array.from({ length: 2100 }, (_, i) => `many:${String(i).padStart(4, "0")}`);
    await succeeds(...bulk("put", jsonFile("many.json", names.map((name) => ({ key: name, value: name })))));
    const listed = json(await succeeds(...key("list", "--prefix=many:"))).map(({ name }) => name);
    assert.deepEqual(listed, names);
    await succeeds(...bulk("delete", jsonFile("names.json", names), "--force"));
    assert.deepEqual(json(await succeeds(...key("list", "--prefix=many:"))), []);
  });
  await check("an unknown namespace is reported with its code", async () => {
    const unknown = ["--namespace-id=ffffffffffffffffffffffffffffffff", "--remote"];
    await fails(/10013/, "key", "list", ...unknown);
    await fails(/10013/, "key", "put", "k", "v", ...unknown);
  });
  await check("namespace delete", async () => {
    await succeeds("namespace", "delete", `--namespace-id=${id}`, "-y");
    assert.ok(!json(await succeeds("namespace", "list")).some((namespace) => namespace.id === id));
    id = undefined;
  });
} finally {
  if (id) await rest("DELETE", `/${id}`);
  rmSync(dir, { recursive: true, force: true });
}
finish();
