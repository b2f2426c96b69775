// Reads vectors.tsv: errors as the contract builds them (kind "build"), or as a client meets them
// (kind "detect").

#ifndef ROWS_HPP_
#define ROWS_HPP_

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "grpcerrors.hpp"

namespace rows {

using Cells = std::vector<std::string>;
using Pairs = grpcerrors::Trailers;

// A line of another kind, such as a comment, has only its cells.
struct Row {
  Cells cells;
  Pairs trailers;  // of a row to detect: values of -bin keys are raw
  Pairs fields;    // of a row to build

  const std::string& Kind() const { return cells[0]; }
  const std::string& Name() const { return cells[1]; }
};

inline constexpr std::string_view kPlain("\\\t\n\r\0", 5);
inline constexpr std::string_view kEscaped = "\\tnr0";

inline std::string Escaped(const std::string& cell) {
  std::string result;
  for (const char c : cell) {
    const std::size_t found = kPlain.find(c);
    if (found == std::string_view::npos) {
      result += c;
    } else {
      result += {'\\', kEscaped[found]};
    }
  }
  return result;
}

inline std::string Unescaped(const std::string& cell) {
  std::string result;
  for (std::size_t i = 0; i < cell.size(); ++i) {
    result += cell[i] == '\\' ? kPlain[kEscaped.find(cell[++i])] : cell[i];
  }
  return result;
}

inline bool IsBinary(const std::string& name) {
  return name.size() > 4 && name.substr(name.size() - 4) == "-bin";
}

inline std::string Hex(const std::string& bytes) {
  std::string result;
  for (const char c : bytes) {
    result += {"0123456789abcdef"[c >> 4 & 15], "0123456789abcdef"[c & 15]};
  }
  return result;
}

inline std::string Unhex(const std::string& text) {
  std::string result;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    result += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
  }
  return result;
}

// Takes a number of pairs, and so many pairs, beginning at a cell.
inline Pairs Take(const Cells& cells, std::size_t* at) {
  Pairs result;
  for (int count = std::stoi(cells.at((*at)++)); count > 0; --count, *at += 2) {
    result.emplace_back(cells.at(*at), cells.at(*at + 1));
  }
  return result;
}

// Returns pairs as cells, their number first.
inline Cells Joined(const Pairs& pairs) {
  Cells result = {std::to_string(pairs.size())};
  for (const auto& [name, value] : pairs) result.insert(result.end(), {name, value});
  return result;
}

// Returns trailers as they stand in the file.
inline Pairs Shown(Pairs trailers) {
  for (auto& [name, value] : trailers) value = IsBinary(name) ? Hex(value) : value;
  return trailers;
}

// Returns cells as they stand in the file.
inline std::string Line(const Cells& cells) {
  std::string result;
  for (const std::string& cell : cells) result += Escaped(cell) + '\t';
  result.back() = '\n';
  return result;
}

inline std::vector<Row> Read(const char* path) {
  std::vector<Row> result;
  std::ifstream file(path, std::ios::binary);
  for (std::string line; std::getline(file, line);) {
    Row row;
    std::istringstream rest(line + '\t');
    for (std::string cell; std::getline(rest, cell, '\t');) row.cells.push_back(Unescaped(cell));
    std::size_t at = row.Kind() == "build" ? 7 : 9;
    if (row.Kind() == "build" || row.Kind() == "detect") row.trailers = Take(row.cells, &at);
    if (row.Kind() == "build") row.fields = Take(row.cells, &at);
    for (auto& [name, value] : row.trailers) value = IsBinary(name) ? Unhex(value) : value;
    result.push_back(std::move(row));
  }
  return result;
}

// Returns the error that grpcerrors.hpp makes of a row to build.
inline grpcerrors::Error Built(const Row& row) {
  const Cells& cells = row.cells;
  std::optional<double> retry_after;
  if (!cells[4].empty()) retry_after = std::stod(cells[4]);
  const grpcerrors::Fields fields(row.fields.begin(), row.fields.end());
  return grpcerrors::MakeError(cells[2], fields, cells[3] == "1", retry_after);
}

// Returns a verdict as the cells of a row to detect.
inline Cells Answers(const grpcerrors::Verdict& verdict) {
  static constexpr const char* kEvidence[] = {"", "details", "trailer", "text", "code"};
  std::ostringstream seconds;
  seconds.precision(15);
  if (verdict.retry_after) seconds << *verdict.retry_after;
  return {verdict.reason, kEvidence[static_cast<int>(verdict.evidence)],
          verdict.unexecuted ? "1" : "0", seconds.str(), verdict.held.value_or("")};
}

}  // namespace rows

#endif  // ROWS_HPP_
