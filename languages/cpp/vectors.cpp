// Prints the lines of vectors.tsv with the answers of grpcerrors.hpp in them. Nothing may differ:
//
//   g++ -std=c++17 vectors.cpp -o vectors && ./vectors vectors.tsv | diff vectors.tsv -

#define GRPCERRORS_WITHOUT_GRPCPP
#include <iostream>

#include "rows.hpp"

namespace {

rows::Cells Answered(const rows::Row& row) {
  rows::Cells cells = row.cells;
  const auto append = [&](const rows::Cells& more) {
    cells.insert(cells.end(), more.begin(), more.end());
  };
  if (row.Kind() == "build") {
    const grpcerrors::Error error = rows::Built(row);
    cells.resize(5);
    append({std::to_string(error.code), error.message});
    append(rows::Joined(rows::Shown(error.trailers)));
    append(rows::Joined(row.fields));
  } else if (row.Kind() == "detect") {
    const int code = cells[2].empty() ? -1 : std::stoi(cells[2]);
    const grpcerrors::Verdict verdict = grpcerrors::Classify(code, cells[3], row.trailers);
    cells.resize(4);
    append(rows::Answers(verdict));
    append(rows::Joined(rows::Shown(row.trailers)));
  }
  return cells;
}

}  // namespace

int main(int, char** argv) {
  for (const rows::Row& row : rows::Read(argv[1])) std::cout << rows::Line(Answered(row));
}
