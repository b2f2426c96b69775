package grpcerrors;

import com.google.protobuf.StringValue;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Server;
import io.grpc.ServerServiceDefinition;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.NettyServerBuilder;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.io.PrintStream;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/**
 * The Java half of tests/interop: a client and a server on grpc-java.
 *
 * <ul>
 *   <li>{@code Peer client ADDRESS VECTORS} asks a server for every row; prints a line for each
 *   <li>{@code Peer server VECTORS} prints its address, serves every row until stdin ends
 * </ul>
 */
final class Peer {
  private static final Map<String, MethodType> SHAPES =
      Map.of(
          "Unary", MethodType.UNARY,
          "ServerStream", MethodType.SERVER_STREAMING,
          "ClientStream", MethodType.CLIENT_STREAMING,
          "Bidi", MethodType.BIDI_STREAMING);

  private Peer() {}

  public static void main(String[] args) throws IOException, InterruptedException {
    List<String> arguments = Arrays.asList(args);
    if (args.length == 3 && arguments.get(0).equals("client")) {
      ask(args[1], Rows.read(args[2]));
    } else if (args.length == 2 && arguments.get(0).equals("server")) {
      serve(Rows.read(args[1]));
    } else {
      throw new IllegalArgumentException("usage: client ADDRESS VECTORS | server VECTORS");
    }
  }

  private static MethodDescriptor<StringValue, StringValue> method(String shape) {
    return MethodDescriptor.<StringValue, StringValue>newBuilder()
        .setType(SHAPES.get(shape))
        .setFullMethodName("interop.Errors/" + shape)
        .setRequestMarshaller(ProtoUtils.marshaller(StringValue.getDefaultInstance()))
        .setResponseMarshaller(ProtoUtils.marshaller(StringValue.getDefaultInstance()))
        .build();
  }

  // ---- Server

  private static void serve(List<Rows.Row> rows) throws IOException, InterruptedException {
    Map<String, Supplier<Throwable>> answers = new HashMap<>(nativeAnswers());
    for (Rows.Row row : rows) {
      if (row.kind().equals("build")) {
        answers.put("build/" + row.name(), row::built);
        answers.put("refuse/" + row.name(), row::built);
      } else if (row.kind().equals("detect")) {
        answers.put("detect/" + row.name(), row::received);
      }
    }
    ServerServiceDefinition service =
        ServerServiceDefinition.builder("interop.Errors")
            .addMethod(
                method("Unary"),
                ServerCalls.asyncUnaryCall((row, out) -> fail(answers, row, false, out)))
            .addMethod(
                method("ServerStream"),
                ServerCalls.asyncServerStreamingCall((row, out) -> fail(answers, row, true, out)))
            .addMethod(
                method("ClientStream"),
                ServerCalls.asyncClientStreamingCall(out -> first(answers, false, out)))
            .addMethod(
                method("Bidi"),
                ServerCalls.asyncBidiStreamingCall(out -> first(answers, true, out)))
            .build();
    Server server =
        NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0))
            .addService(service)
            .build()
            .start();
    System.out.println("127.0.0.1:" + server.getPort());
    while (System.in.read() >= 0) {
      // It ends when its standard input is closed.
    }
    server.shutdownNow().awaitTermination();
  }

  /** Returns what Java backends without the contract say. */
  private static Map<String, Supplier<Throwable>> nativeAnswers() {
    String notLoaded = "rfdetr: model not loaded";
    Metadata foreign = new Metadata();
    // A google.rpc.Status with an ErrorInfo of reason QUOTA and domain example.com.
    String quota =
        "0809120571756f74611a400a28747970652e676f6f676c65617069732e636f6d2f676f6f676c652e7270632e"
            + "4572726f72496e666f12140a0551554f5441120b6578616d706c652e636f6d";
    foreign.put(GrpcErrors.DETAILS_KEY, Rows.unhex(quota));
    return Map.of(
        "native/words", () -> said(Status.FAILED_PRECONDITION, notLoaded),
        "native/plain", () -> said(Status.UNKNOWN, notLoaded),
        "native/wrapped", () -> said(Status.INTERNAL, "Inference failed: " + notLoaded),
        "native/code", () -> said(Status.FAILED_PRECONDITION, "warming up"),
        "native/mismatch",
            () ->
                said(
                    Status.NOT_FOUND,
                    "rfdetr: model identity mismatch: loaded \"a\", requested \"b\""),
        "native/quoted", () -> said(Status.INVALID_ARGUMENT, "cannot parse \"model not loaded\""),
        "native/foreign",
            () ->
                Status.FAILED_PRECONDITION.withDescription("quota").asRuntimeException(foreign),
        "native/other", () -> said(Status.UNKNOWN, "out of memory"));
  }

  private static StatusRuntimeException said(Status status, String message) {
    return status.withDescription(message).asRuntimeException();
  }

  private static void fail(
      Map<String, Supplier<Throwable>> answers,
      StringValue request,
      boolean streams,
      StreamObserver<StringValue> out) {
    String row = request.getValue();
    if (streams && !row.startsWith("refuse/")) {
      out.onNext(request);
    }
    if (row.startsWith("held/")) {
      Metadata trailers = new Metadata();
      GrpcErrors.vouch(trailers, row.substring("held/".length()));
      out.onError(
          Status.UNKNOWN.withDescription("x: model not loaded").asRuntimeException(trailers));
    } else if (answers.containsKey(row)) {
      out.onError(answers.get(row).get());
    } else {
      out.onError(said(Status.OUT_OF_RANGE, "no row " + row));
    }
  }

  /** Answers the first message of a stream, with which the client has said all. */
  private static StreamObserver<StringValue> first(
      Map<String, Supplier<Throwable>> answers, boolean streams, StreamObserver<StringValue> out) {
    return new StreamObserver<StringValue>() {
      @Override
      public void onNext(StringValue request) {
        fail(answers, request, streams, out);
      }

      @Override
      public void onError(Throwable error) {}

      @Override
      public void onCompleted() {}
    };
  }

  // ---- Client

  private static void ask(String address, List<Rows.Row> rows)
      throws IOException, InterruptedException {
    ManagedChannel channel = NettyChannelBuilder.forTarget(address).usePlaintext().build();
    PrintStream out = new PrintStream(System.out, false, "UTF-8");
    for (Rows.Row row : rows) {
      if (!row.kind().equals("build") && !row.kind().equals("detect")) {
        continue;
      }
      for (String shape : Arrays.asList("Unary", "ServerStream", "ClientStream", "Bidi")) {
        String name = row.kind() + "/" + row.name();
        List<String> cells = new ArrayList<>(Arrays.asList(name, shape));
        cells.addAll(call(channel, shape, StringValue.of(name)));
        out.print(Rows.line(cells));
      }
    }
    out.flush();
    channel.shutdownNow().awaitTermination(60, TimeUnit.SECONDS);
  }

  /** Makes a call; returns the number of messages before its error, and what the error says. */
  private static List<String> call(Channel channel, String shape, StringValue request) {
    List<StringValue> received = new ArrayList<>();
    Throwable error = null;
    try {
      if (shape.equals("Unary")) {
        received.add(
            ClientCalls.blockingUnaryCall(channel, method(shape), CallOptions.DEFAULT, request));
      } else if (shape.equals("ServerStream")) {
        Iterator<StringValue> replies =
            ClientCalls.blockingServerStreamingCall(
                channel, method(shape), CallOptions.DEFAULT, request);
        replies.forEachRemaining(received::add);
      } else {
        stream(channel, shape, request, received).join();
      }
    } catch (StatusRuntimeException failed) {
      error = failed;
    } catch (CompletionException failed) {
      error = failed; // classify reads its cause
    }
    Status status = Status.fromThrowable(error);
    GrpcErrors.Verdict verdict = GrpcErrors.classify(error);
    List<String[]> metadata = new ArrayList<>();
    verdict.fields().forEach((name, value) -> metadata.add(new String[] {name, value}));
    List<String> cells = new ArrayList<>();
    cells.add(String.valueOf(received.size()));
    cells.add(String.valueOf(status.getCode().value()));
    cells.add(status.getDescription() == null ? "" : status.getDescription());
    cells.addAll(Rows.answers(verdict));
    cells.addAll(Rows.joined(metadata));
    return cells;
  }

  private static CompletableFuture<Void> stream(
      Channel channel, String shape, StringValue request, List<StringValue> received) {
    CompletableFuture<Void> ended = new CompletableFuture<>();
    StreamObserver<StringValue> replies =
        new StreamObserver<StringValue>() {
          @Override
          public void onNext(StringValue reply) {
            received.add(reply);
          }

          @Override
          public void onError(Throwable error) {
            ended.completeExceptionally(error);
          }

          @Override
          public void onCompleted() {
            ended.complete(null);
          }
        };
    StreamObserver<StringValue> requests =
        shape.equals("Bidi")
            ? ClientCalls.asyncBidiStreamingCall(
                channel.newCall(method(shape), CallOptions.DEFAULT), replies)
            : ClientCalls.asyncClientStreamingCall(
                channel.newCall(method(shape), CallOptions.DEFAULT), replies);
    requests.onNext(request);
    requests.onCompleted();
    return ended;
  }
}
