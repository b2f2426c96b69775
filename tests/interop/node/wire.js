// What both halves share: the service, its messages, and how an error carries details.
import { join } from "node:path";
import protobuf from "protobufjs";

const root = new protobuf.Root();
root.resolvePath = (_, target) =>
  protobuf.common.get(target) ? target : join(process.env.GOOGLE_PROTOS, target);
root.loadSync([
  "google/protobuf/wrappers.proto",
  "google/rpc/status.proto",
  "google/rpc/error_details.proto",
]);

const StringValue = root.lookupType("google.protobuf.StringValue");
const Status = root.lookupType("google.rpc.Status");
const ErrorInfo = root.lookupType("google.rpc.ErrorInfo");
const ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo";

export const DETAILS = "grpc-status-details-bin";
export const DOMAIN = "grpcerrors";

const encode = (value) => StringValue.encode({ value }).finish();
const decode = (bytes) => StringValue.decode(bytes).value;
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

export function packErrorInfo(code, message, info) {
  const details = [{ type_url: ERROR_INFO, value: ErrorInfo.encode(info).finish() }];
  return Buffer.from(Status.encode({ code, message, details }).finish());
}

export function unpackErrorInfos(trailer) {
  return Status.decode(trailer)
    .details.filter((detail) => detail.type_url === ERROR_INFO)
    .map((detail) => ErrorInfo.toObject(ErrorInfo.decode(detail.value)));
}
