// node validate.mjs FILE...: prints one JSON line per file, with what the validator found.
import { readFile } from "node:fs/promises";
import validator from "gltf-validator";

for (const file of process.argv.slice(2)) {
  const report = await validator.validateBytes(new Uint8Array(await readFile(file)), {
    maxIssues: 0,
  });
  console.log(JSON.stringify({ file, issues: report.issues, info: report.info }));
}
