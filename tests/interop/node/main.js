// The Node half of tests/interop: a client and a server on @grpc/grpc-js.
//
//   node main.js client ADDRESS VECTORS  asks a server for every row; prints a line for each
//   node main.js server VECTORS          prints its address, serves every row until stdin ends
//
// It is run in a folder with grpcerrors.js and rows.js of languages/node.
import { ask } from "./client.js";
import { readRows } from "./rows.js";
import { serve } from "./server.js";

const [mode, ...rest] = process.argv.slice(2);

if (mode === "client" && rest.length === 2) {
  await ask(rest[0], readRows(rest[1]));
} else if (mode === "server" && rest.length === 1) {
  await serve(readRows(rest[0]));
} else {
  console.error("usage: node main.js client ADDRESS VECTORS | server VECTORS");
  process.exitCode = 2;
}
