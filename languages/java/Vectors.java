package grpcerrors;

import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.io.PrintStream;
import java.util.ArrayList;
import java.util.List;

/**
 * Prints the lines of vectors.tsv with the answers of GrpcErrors.java in them. Nothing may differ:
 *
 * <pre>{@code java grpcerrors.Vectors vectors.tsv | diff vectors.tsv -}</pre>
 */
final class Vectors {
  private Vectors() {}

  public static void main(String[] args) throws IOException {
    PrintStream out = new PrintStream(System.out, false, "UTF-8");
    for (Rows.Row row : Rows.read(args[0])) {
      out.print(Rows.line(answered(row)));
    }
    out.flush();
  }

  private static List<String> answered(Rows.Row row) {
    List<String> cells = new ArrayList<>(row.cells);
    if (row.kind().equals("build")) {
      StatusRuntimeException error = row.built();
      cells.subList(5, cells.size()).clear();
      cells.add(String.valueOf(error.getStatus().getCode().value()));
      cells.add(error.getStatus().getDescription());
      cells.addAll(Rows.joined(trailers(error)));
      cells.addAll(Rows.joined(row.fields));
    } else if (row.kind().equals("detect")) {
      cells.subList(4, cells.size()).clear();
      cells.addAll(Rows.answers(GrpcErrors.classify(row.received())));
      cells.addAll(Rows.joined(row.trailers));
    }
    return cells;
  }

  private static List<String[]> trailers(StatusRuntimeException error) {
    List<String[]> pairs = new ArrayList<>();
    byte[] details = error.getTrailers().get(GrpcErrors.DETAILS_KEY);
    pairs.add(new String[] {GrpcErrors.DETAILS_KEY.name(), Rows.hex(details)});
    String plain = error.getTrailers().get(GrpcErrors.UNEXECUTED_KEY);
    if (plain != null) {
      pairs.add(new String[] {GrpcErrors.UNEXECUTED_KEY.name(), plain});
    }
    return pairs;
  }
}
