// Generates src/generated from the contract. With --check nothing is changed: it
// only tells whether what is there is what would be generated.
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const out = join(root, "src/generated");

function generate() {
  execFileSync("npx", ["--no-install", "buf", "generate"], { cwd: root, stdio: "inherit" });
}

/** Every file below `directory`, with what is in it. */
function tree(directory) {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true });
  const names = entries.filter((it) => it.isFile()).map((it) => join(it.parentPath, it.name));
  return JSON.stringify(names.sort().map((name) => [name, readFileSync(name, "utf8")]));
}

function check() {
  const scratch = mkdtempSync(join(tmpdir(), "duologue-generated-"));
  const before = tree(out);
  cpSync(out, scratch, { recursive: true });
  try {
    generate();
    if (tree(out) === before) return;
    console.error("src/generated is not what the contract gives: npm run generate");
    process.exitCode = 1;
  } finally {
    rmSync(out, { recursive: true });
    cpSync(scratch, out, { recursive: true });
    rmSync(scratch, { recursive: true });
  }
}

if (process.argv.includes("--check")) check();
else generate();
