// Prints the lines of vectors.tsv with the answers of grpcerrors.js in them. Nothing may differ:
//
//     node vectors.js vectors.tsv | diff vectors.tsv -
import { answers, built, joined, line, readRows, received } from "./rows.js";

const DETAILS = "grpc-status-details-bin";

const answered = {
  build(row) {
    const { code, message, metadata } = built(row);
    const { [DETAILS]: details, ...plain } = metadata.getMap();
    const trailers = [[DETAILS, details.toString("hex")], ...Object.entries(plain)];
    const given = row.cells.slice(0, 5);
    return [...given, String(code), message, ...joined(trailers), ...joined(row.fields)];
  },
  detect(row) {
    return [...row.cells.slice(0, 4), ...answers(received(row)), ...joined(row.trailers)];
  },
};

for (const row of readRows(process.argv[2])) {
  console.log(line(answered[row.kind]?.(row) ?? row.cells));
}
