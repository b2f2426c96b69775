import { Client, credentials } from "@grpc/grpc-js";
import { classify } from "./grpcerrors.js";
import { answers, joined, line } from "./rows.js";
import { service } from "./service.js";

export async function ask(address, rows) {
  const client = new Client(address, credentials.createInsecure());
  for (const { kind, name } of rows.filter(({ name }) => name)) {
    for (const shape of Object.keys(service)) {
      const { error, received } = await call(client, service[shape], `${kind}/${name}`);
      console.log(line([`${kind}/${name}`, shape, String(received), ...seen(error)]));
    }
  }
  client.close();
}

// Resolves to the call's error, null if there is none, and how many messages came before it.
function call(client, method, row) {
  const { path, requestSerialize, responseDeserialize, requestStream, responseStream } = method;
  const codecs = [path, requestSerialize, responseDeserialize];
  return new Promise((resolve) => {
    const done = (error, reply) => resolve({ error, received: reply === undefined ? 0 : 1 });
    if (!requestStream && !responseStream) {
      client.makeUnaryRequest(...codecs, row, done);
    } else if (!responseStream) {
      client.makeClientStreamRequest(...codecs, done).end(row);
    } else {
      const stream = requestStream
        ? client.makeBidiStreamRequest(...codecs)
        : client.makeServerStreamRequest(...codecs, row);
      let received = 0;
      stream.on("data", () => (received += 1));
      stream.on("end", () => resolve({ error: null, received }));
      stream.on("error", (error) => resolve({ error, received }));
      if (requestStream) stream.end(row);
    }
  });
}

// Returns code, message and the answers of grpcerrors.js, and the metadata of the ErrorInfo.
function seen(error) {
  const { code = 0, details = "" } = error ?? {};
  const metadata = Object.entries(classify(error).metadata).sort();
  return [String(code), details, ...answers(error), ...joined(metadata)];
}
