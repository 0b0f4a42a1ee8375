/** Builds the page into the gateway's assets, and refuses a page that has grown too large. */
import { join } from "node:path";
import { bundle, PAGE } from "./bundle.ts";

/** Compressed by brotli: what a first visit transfers. */
const MOST_BYTES = 60 * 1024;

const sizes = await bundle({ outDir: join(PAGE, "../../../gateway/assets"), fake: false });
let total = 0;
for (const [name, size] of sizes) {
  total += size;
  console.log(`${String(size).padStart(7)}  ${name}`);
}
console.log(`${String(total).padStart(7)}  together, compressed by brotli (at most ${MOST_BYTES})`);
if (total > MOST_BYTES) process.exitCode = 1;
