// The Node half of tests/interop: a client and a server on @grpc/grpc-js.
//
//   node main.js client ADDRESS VECTORS  asks a server for every row; prints a line of JSON for each
//   node main.js server VECTORS          prints its address, serves every row until stdin ends
//
// GOOGLE_PROTOS names the folder that holds google/rpc/*.proto.
import { readFileSync } from "node:fs";
import { ask } from "./client.js";
import { serve } from "./server.js";

const [mode, ...rest] = process.argv.slice(2);
const vectors = () => JSON.parse(readFileSync(rest.at(-1), "utf8"));

if (mode === "client" && rest.length === 2) {
  await ask(rest[0], vectors());
} else if (mode === "server" && rest.length === 1) {
  await serve(vectors());
} else {
  console.error("usage: node main.js client ADDRESS VECTORS | server VECTORS");
  process.exitCode = 2;
}
