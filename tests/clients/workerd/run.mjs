// Starts the real workerd binary with a KV binding that points at the server under test,
// and reports what the worker inside it found.
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import workerd from "workerd";
import { finish, report } from "../lib/check.mjs";
import { guarded, nsHeader, origin, token, withNamespace } from "../lib/server.mjs";

const here = dirname(fileURLToPath(import.meta.url));

const freePort = () =>
  new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

const external = (name, namespace, bearer = token) => `( name = "${name}", external = (
        address = "${origin.hostname}:${origin.port || 80}",
        http = ( injectRequestHeaders = [
          (name = "${nsHeader}", value = "${namespace}"),
          (name = "Authorization", value = "Bearer ${bearer}") ] ) ) )`;

const config = ({ cases, namespace, port, slow }) => `
using Workerd = import "/workerd/workerd.capnp";
const flags :List(Text) = ["experimental"];
const config :Workerd.Config = (
  services = [
    ( name = "cases", worker = (
        modules = [ (name = "${cases}", esModule = embed "${cases}") ],
        compatibilityDate = "2026-11-01",
        compatibilityFlags = .flags,
        bindings = [
          (name = "KV", kvNamespace = "store"),
          (name = "KV_SHIM", kvNamespace = "shim"),
          (name = "KV_UNKNOWN", kvNamespace = "nowhere"),
          (name = "KV_STRANGER", kvNamespace = "stranger"),
          (name = "GUARDED", json = "${guarded}"),
          (name = "SLOW", json = "${slow}"),
        ] ) ),
    ( name = "shim", worker = (
        modules = [ (name = "shim.js", esModule = embed "shim.js") ],
        compatibilityDate = "2026-11-01",
        compatibilityFlags = .flags,
        bindings = [ (name = "STORE", service = "store") ] ) ),
    ${external("store", namespace)},
    ${external("nowhere", "f".repeat(32))},
    ${external("stranger", namespace, "wrong")},
  ],
  sockets = [ (name = "http", address = "127.0.0.1:${port}", http = (), service = "cases") ],
);
`;

async function results(url, child) {
  for (let attempt = 0; attempt < 100; attempt++) {
    if (child.exitCode !== null) throw new Error(`workerd exited with ${child.exitCode}`);
    const response = await fetch(url, { signal: AbortSignal.timeout(300_000) }).catch((error) => {
      if (error.name === "TimeoutError") throw error;
    });
    if (response) return response.json();
    await sleep(100);
  }
  throw new Error("workerd did not start listening");
}

/** Runs one file of cases in a namespace and a workerd of its own. */
const run = (cases) => withNamespace("workerd", async (namespace) => {
  const dir = mkdtempSync(join(tmpdir(), "kvast-workerd-"));
  const port = await freePort();
  for (const file of [cases, "shim.js"]) cpSync(join(here, file), join(dir, file));
  const slow = process.env.KV_SLOW === "1";
  writeFileSync(join(dir, "config.capnp"), config({ cases, namespace, port, slow }));
  const child = spawn(workerd.default ?? workerd, ["serve", "config.capnp", "--experimental"], {
    cwd: dir,
    stdio: ["ignore", "inherit", "inherit"],
  });
  try {
    for (const { name, error } of await results(`http://127.0.0.1:${port}/`, child)) {
      report(`${cases}: ${name}`, error);
    }
  } catch (error) {
    report(cases, error.message);
  } finally {
    child.kill();
    rmSync(dir, { recursive: true, force: true });
  }
});

for (const cases of ["cases.js", "manual.js"]) await run(cases);
finish();
