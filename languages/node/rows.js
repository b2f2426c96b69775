// Reads vectors.tsv: errors as the contract builds them (kind "build"), or as a client meets them
// (kind "detect").
import { readFileSync } from "node:fs";
import { Metadata } from "@grpc/grpc-js";
import { ContractError, classify, heldModel } from "./grpcerrors.js";

const ESCAPES = { "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0" };
const UNESCAPES = Object.fromEntries(Object.entries(ESCAPES).map(([one, two]) => [two, one]));

/** Returns the rows of the file; a line of another kind, such as a comment, has only its cells. */
export function readRows(path) {
  const lines = readFileSync(path, "utf8").trimEnd().split("\n");
  return lines.map((text) => {
    const cells = text.split("\t").map((cell) => cell.replace(/\\./g, (each) => UNESCAPES[each]));
    const [kind, name] = cells;
    if (kind === "build") {
      const [, , condition, started, retryAfter, , , ...rest] = cells;
      takePairs(rest); // the trailers
      const fields = takePairs(rest);
      const delay = retryAfter === "" ? undefined : Number(retryAfter);
      return { cells, kind, name, condition, started: started === "1", retryAfter: delay, fields };
    }
    if (kind === "detect") {
      const [, , code, message, , , , , , ...rest] = cells;
      return { cells, kind, name, code, message, trailers: takePairs(rest) };
    }
    return { cells, kind };
  });
}

/** Returns the error that grpcerrors.js makes of a row to build. */
export function built({ condition, fields, started, retryAfter }) {
  return new ContractError(condition, Object.fromEntries(fields), { started, retryAfter });
}

/** Returns the error of a row to detect, as grpc-js gives it to a client. */
export function received({ code, message, trailers }) {
  const metadata = new Metadata();
  for (const [name, value] of trailers) {
    metadata.add(name, name.endsWith("-bin") ? Buffer.from(value, "hex") : value);
  }
  const error = Object.assign(new Error(message), { metadata });
  return code === "" ? error : Object.assign(error, { code: Number(code), details: message });
}

/** Returns what grpcerrors.js says of an error, as the cells of a row to detect. */
export function answers(error) {
  const { reason, evidence, unexecuted, retryAfter } = classify(error);
  const cells = [reason, evidence, unexecuted ? 1 : 0, retryAfter, heldModel(error)];
  return cells.map((cell) => String(cell ?? ""));
}

/** Returns pairs as cells, their number first. */
export const joined = (pairs) => [String(pairs.length), ...pairs.flat()];

/** Returns cells as they stand in the file. */
export const line = (cells) =>
  cells.map((cell) => cell.replace(/[\\\t\n\r\0]/g, (each) => ESCAPES[each])).join("\t");

function takePairs(cells) {
  return Array.from({ length: Number(cells.shift()) }, () => cells.splice(0, 2));
}
