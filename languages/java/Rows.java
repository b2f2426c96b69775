package grpcerrors;

import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * Reads vectors.tsv: errors as the contract builds them (kind "build"), or as a client meets them
 * (kind "detect").
 */
final class Rows {
  private static final String PLAIN = "\\\t\n\r\0";
  private static final String ESCAPED = "\\tnr0";

  private Rows() {}

  /** A line; one of another kind, such as a comment, has only its cells. */
  static final class Row {
    final List<String> cells;
    final List<String[]> trailers = new ArrayList<>(); // those of -bin keys in hexadecimal digits
    final List<String[]> fields = new ArrayList<>();

    Row(List<String> cells) {
      this.cells = cells;
      if (kind().equals("build")) {
        Iterator<String> rest = cells.subList(7, cells.size()).iterator();
        trailers.addAll(take(rest));
        fields.addAll(take(rest));
      } else if (kind().equals("detect")) {
        trailers.addAll(take(cells.subList(9, cells.size()).iterator()));
      }
    }

    String kind() {
      return cells.get(0);
    }

    String name() {
      return cells.get(1);
    }

    /** Returns the error that GrpcErrors makes of a row to build. */
    StatusRuntimeException built() {
      Map<String, String> given = new HashMap<>();
      for (String[] pair : fields) {
        given.put(pair[0], pair[1]);
      }
      String delay = cells.get(4);
      Duration retryAfter =
          delay.isEmpty() ? null : Duration.ofNanos((long) (Double.parseDouble(delay) * 1e9));
      GrpcErrors.Condition condition = GrpcErrors.Condition.valueOf(cells.get(2));
      return GrpcErrors.error(condition, given, cells.get(3).equals("1"), retryAfter);
    }

    /** Returns the error of a row to detect. */
    Throwable received() {
      Metadata all = new Metadata();
      for (String[] pair : trailers) {
        if (pair[0].endsWith("-bin")) {
          all.put(Metadata.Key.of(pair[0], Metadata.BINARY_BYTE_MARSHALLER), unhex(pair[1]));
        } else {
          all.put(Metadata.Key.of(pair[0], Metadata.ASCII_STRING_MARSHALLER), pair[1]);
        }
      }
      String code = cells.get(2);
      String message = cells.get(3);
      return code.isEmpty()
          ? new IOException(message)
          : Status.fromCodeValue(Integer.parseInt(code))
              .withDescription(message)
              .asRuntimeException(all);
    }
  }

  static List<Row> read(String path) throws IOException {
    List<Row> rows = new ArrayList<>();
    String text = new String(Files.readAllBytes(Paths.get(path)), StandardCharsets.UTF_8);
    for (String line : text.split("\n")) {
      List<String> cells = new ArrayList<>();
      for (String cell : line.split("\t", -1)) {
        cells.add(unescaped(cell));
      }
      rows.add(new Row(cells));
    }
    return rows;
  }

  /** Returns a verdict as the cells of a row to detect. */
  static List<String> answers(GrpcErrors.Verdict verdict) {
    return Arrays.asList(
        verdict.condition().map(Enum::name).orElse(""),
        verdict.evidence().map(it -> it.name().toLowerCase(Locale.ROOT)).orElse(""),
        verdict.unexecuted() ? "1" : "0",
        verdict.retryAfter().map(Rows::seconds).orElse(""),
        verdict.held().orElse(""));
  }

  private static String seconds(Duration delay) {
    String text = String.valueOf(delay.getSeconds() + delay.getNano() / 1e9);
    return text.endsWith(".0") ? text.substring(0, text.length() - 2) : text;
  }

  /** Returns pairs as cells, their number first. */
  static List<String> joined(List<String[]> pairs) {
    List<String> cells = new ArrayList<>();
    cells.add(String.valueOf(pairs.size()));
    for (String[] pair : pairs) {
      cells.addAll(Arrays.asList(pair));
    }
    return cells;
  }

  /** Returns cells as they stand in the file. */
  static String line(List<String> cells) {
    StringBuilder result = new StringBuilder();
    for (String cell : cells) {
      result.append(result.length() == 0 ? "" : "\t");
      for (char each : cell.toCharArray()) {
        int found = PLAIN.indexOf(each);
        result.append(found < 0 ? String.valueOf(each) : "\\" + ESCAPED.charAt(found));
      }
    }
    return result.append('\n').toString();
  }

  static String hex(byte[] bytes) {
    StringBuilder result = new StringBuilder();
    for (byte each : bytes) {
      result.append(String.format("%02x", each));
    }
    return result.toString();
  }

  static byte[] unhex(String text) {
    byte[] bytes = new byte[text.length() / 2];
    for (int i = 0; i < bytes.length; i++) {
      bytes[i] = (byte) Integer.parseInt(text.substring(2 * i, 2 * i + 2), 16);
    }
    return bytes;
  }

  /** Takes a number of pairs, and so many pairs. */
  private static List<String[]> take(Iterator<String> cells) {
    List<String[]> pairs = new ArrayList<>();
    for (int count = Integer.parseInt(cells.next()); count > 0; count--) {
      pairs.add(new String[] {cells.next(), cells.next()});
    }
    return pairs;
  }

  private static String unescaped(String cell) {
    StringBuilder result = new StringBuilder();
    for (int i = 0; i < cell.length(); i++) {
      boolean escape = cell.charAt(i) == '\\';
      result.append(escape ? PLAIN.charAt(ESCAPED.indexOf(cell.charAt(++i))) : cell.charAt(i));
    }
    return result.toString();
  }
}
