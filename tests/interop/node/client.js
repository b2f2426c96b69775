import { Client, credentials } from "@grpc/grpc-js";
import { DETAILS, service, unpackErrorInfos } from "./wire.js";

export async function ask(address, { build, detect }) {
  const client = new Client(address, credentials.createInsecure());
  const rows = [
    ...build.map(({ name }) => `build/${name}`),
    ...detect.map(({ name }) => `detect/${name}`),
  ];
  for (const row of rows) {
    for (const shape of Object.keys(service)) {
      const { error, received } = await call(client, service[shape], row);
      console.log(JSON.stringify({ row, shape, received, ...see(error) }));
    }
  }
  client.close();
}

// Resolves to the call's error, null where there is none, and how many messages came before it.
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

function see(error) {
  const trailers = error?.metadata?.get(DETAILS) ?? [];
  let infos = [];
  try {
    infos = trailers.flatMap(unpackErrorInfos);
  } catch {
    // not a google.rpc.Status: then there are none
  }
  return {
    code: error?.code ?? 0,
    message: error?.details ?? "",
    infos,
    details_hex: trailers.map((trailer) => trailer.toString("hex")).join(),
  };
}
