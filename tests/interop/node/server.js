import { Metadata, Server, ServerCredentials, status } from "@grpc/grpc-js";
import { setHeld } from "./grpcerrors.js";
import { built, received } from "./rows.js";
import { service } from "./service.js";

const failure = (code, details) => ({ code, details });

// google.rpc.Status of code 9, message "quota" and one ErrorInfo: reason QUOTA, domain example.com.
const FOREIGN = Buffer.from(
  "0809120571756f74611a400a28747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e" +
    "4572726f72496e666f12140a0551554f5441120b6578616d706c652e636f6d",
  "hex",
);
const foreign = new Metadata();
foreign.set("grpc-status-details-bin", FOREIGN);

// What Node backends without the contract say.
const native = {
  words: failure(status.FAILED_PRECONDITION, "rfdetr: model not loaded"),
  plain: new Error("rfdetr: model not loaded"),
  wrapped: new Error(`predict: ${new Error("rfdetr: model not loaded").message}`),
  code: failure(status.FAILED_PRECONDITION, "warming up"),
  mismatch: failure(
    status.NOT_FOUND,
    'rfdetr: model identity mismatch: loaded "a", requested "b"',
  ),
  quoted: failure(status.INVALID_ARGUMENT, 'cannot parse "model not loaded"'),
  foreign: { ...failure(status.FAILED_PRECONDITION, "quota"), metadata: foreign },
  other: new Error("out of memory"),
};

export async function serve(rows) {
  const answers = new Map();
  for (const [name, answer] of Object.entries(native)) answers.set(`native/${name}`, answer);
  for (const row of rows) {
    if (row.kind === "build") answers.set(`build/${row.name}`, built(row));
    if (row.kind === "build") answers.set(`refuse/${row.name}`, built(row));
    if (row.kind === "detect") answers.set(`detect/${row.name}`, received(row));
  }
  const find = (row) => {
    if (row.startsWith("held/")) return held(row.slice("held/".length));
    return answers.get(row) ?? failure(status.OUT_OF_RANGE, `no row ${row}`);
  };
  // A streaming method sends a message before the error, unless the row is a refusal.
  const fail = (call, row) => {
    if (!row.startsWith("refuse/")) call.write(row);
    call.emit("error", find(row));
  };

  const server = new Server();
  server.addService(service, {
    Unary: (call, callback) => callback(find(call.request)),
    ServerStream: (call) => fail(call, call.request),
    ClientStream: (call, callback) => call.on("data", (row) => callback(find(row))),
    Bidi: (call) => call.on("data", (row) => fail(call, row)),
  });
  const bind = ["127.0.0.1:0", ServerCredentials.createInsecure()];
  const port = await new Promise((resolve, reject) =>
    server.bindAsync(...bind, (error, port) => (error ? reject(error) : resolve(port))),
  );
  process.stdin.resume().on("end", () => server.forceShutdown());
  console.log(`127.0.0.1:${port}`);
}

function held(model) {
  const metadata = new Metadata();
  setHeld(metadata, model);
  return Object.assign(new Error("x: model not loaded"), { metadata });
}
