import { Metadata, Server, ServerCredentials, status } from "@grpc/grpc-js";
import { DETAILS, DOMAIN, packErrorInfo, service } from "./wire.js";

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
  foreign: typed(status.FAILED_PRECONDITION, "quota", { reason: "QUOTA", domain: "example.com" }),
  other: new Error("out of memory"),
};

export async function serve({ build, detect }) {
  const answers = new Map();
  for (const [name, answer] of Object.entries(native)) answers.set(`native/${name}`, answer);
  for (const row of build) {
    const given = Object.entries(row.fields).filter(([, value]) => value !== "");
    if (row.started) given.push(["started", "true"]);
    const metadata = Object.fromEntries(given);
    const info = { reason: row.condition, domain: DOMAIN, metadata };
    answers.set(`build/${row.name}`, typed(row.code, row.message, info));
    answers.set(`exact/${row.name}`, raw({ ...row, details_hex: [row.details_hex] }));
  }
  for (const row of detect) {
    answers.set(`detect/${row.name}`, raw(row));
  }
  const find = (row) => answers.get(row) ?? failure(status.OUT_OF_RANGE, `no row ${row}`);

  const server = new Server();
  server.addService(service, {
    Unary: (call, callback) => callback(find(call.request)),
    ServerStream: (call) => {
      call.write(call.request);
      call.emit("error", find(call.request));
    },
    ClientStream: (call, callback) => call.on("data", (row) => callback(find(row))),
    Bidi: (call) =>
      call.on("data", (row) => {
        call.write(row);
        call.emit("error", find(row));
      }),
  });
  const bind = ["127.0.0.1:0", ServerCredentials.createInsecure()];
  const port = await new Promise((resolve, reject) =>
    server.bindAsync(...bind, (error, port) => (error ? reject(error) : resolve(port))),
  );
  process.stdin.resume().on("end", () => server.forceShutdown());
  console.log(`127.0.0.1:${port}`);
}

function typed(code, message, info) {
  return failure(code, message, [packErrorInfo(code, message, info)]);
}

function raw({ code, message, details_hex: values, trailers = [] }) {
  const details = (values ?? []).map((value) => Buffer.from(value, "hex"));
  const answer = failure(code, message, details);
  for (const [name, value] of trailers) answer.metadata.add(name, value);
  return answer;
}

function failure(code, details, trailers = []) {
  const metadata = new Metadata();
  for (const trailer of trailers) metadata.add(DETAILS, trailer);
  return { code, details, metadata };
}
