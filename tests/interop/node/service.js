// The service of both halves. Its messages are google.protobuf.StringValue, and all its texts are
// the names of rows: ASCII, and short enough for a length of one byte.
const encode = (text) => Buffer.from([0x0a, text.length, ...Buffer.from(text)]);
const decode = (bytes) => bytes.toString("utf8", 2);

const method = (name, requestStream, responseStream) => ({
  path: `/interop.Errors/${name}`,
  requestStream,
  responseStream,
  requestSerialize: encode,
  requestDeserialize: decode,
  responseSerialize: encode,
  responseDeserialize: decode,
});

export const service = {
  Unary: method("Unary", false, false),
  ServerStream: method("ServerStream", false, true),
  ClientStream: method("ClientStream", true, false),
  Bidi: method("Bidi", true, true),
};
