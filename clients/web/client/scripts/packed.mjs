// The package as others get it: packed, unpacked elsewhere, and used from there, by its
// types and by Node, without the sources beside it.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
// Beside the packages that it depends on.
const user = join(root, "../node_modules/.packed");
const installed = join(user, "node_modules/@duologue/client");
rmSync(user, { recursive: true, force: true });
mkdirSync(installed, { recursive: true });
execFileSync("npm", ["pack", "--silent", "--pack-destination", user], { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
const [packed] = readdirSync(user).filter((name) => name.endsWith(".tgz"));
execFileSync("tar", ["-xzf", join(user, packed), "-C", installed, "--strip-components=1"]);

const files = readdirSync(installed).sort();
assert.deepEqual(files, ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "dist", "package.json"]);
writeFileSync(join(user, "package.json"), '{ "type": "module" }');
writeFileSync(join(user, "user.ts"), `
import { openClient, type Client, type ClientOptions } from "@duologue/client";
export const open: (options: ClientOptions) => Promise<Client> = openClient;
`);
const tsc = ["--no-install", "tsc", "--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2023,dom", "--skipLibCheck", "false", "user.ts"];
execFileSync("npx", tsc, { cwd: user, stdio: "inherit" });
const use = 'import { openClient } from "@duologue/client"; if (typeof openClient !== "function") process.exit(1);';
execFileSync("node", ["--input-type=module", "--eval", use], { cwd: user, stdio: "inherit" });
rmSync(user, { recursive: true, force: true });
