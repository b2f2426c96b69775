package grpcerrors;

import grpcerrors.GrpcErrors.Condition;
import grpcerrors.GrpcErrors.Evidence;
import grpcerrors.GrpcErrors.Verdict;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;

/** What the vectors do not show of GrpcErrors.java. Its main method fails if a test does. */
final class GrpcErrorsTest {
  private GrpcErrorsTest() {}

  public static void main(String[] args) throws InterruptedException {
    eachConstructorBuildsItsCondition();
    classifyReadsWhatAnErrorWraps();
    theDelayIsWithinLimits();
    wordsNameTheBackend();
    loneSurrogatesAreSentAsUtf8();
    theHeldModelFits();
    aLongMessageIsReadToItsLimit();
    aHostileMessageNeedsLittleStack();
  }

  private static void expect(Object got, Object expected) {
    if (!Objects.equals(got, expected)) {
      throw new AssertionError(got + ", not " + expected);
    }
  }

  private static void eachConstructorBuildsItsCondition() {
    Map<Condition, StatusRuntimeException> built =
        Map.of(
            Condition.MODEL_NOT_LOADED, GrpcErrors.modelNotLoaded("b"),
            Condition.MODEL_MISMATCH, GrpcErrors.modelMismatch("b", "m", "n"),
            Condition.MODEL_LOADING, GrpcErrors.modelLoading("b", "", Duration.ofSeconds(1)),
            Condition.LIVE_TRANSCRIPTION_UNSUPPORTED,
                GrpcErrors.liveTranscriptionUnsupported("b", "offline"),
            Condition.STREAM_TRANSCRIPTION_UNSUPPORTED,
                GrpcErrors.streamTranscriptionUnsupported("b", "offline"));
    expect(built.size(), Condition.values().length);
    built.forEach(
        (condition, error) -> {
          Verdict verdict = GrpcErrors.classify(error);
          for (Condition each : Condition.values()) {
            expect(verdict.is(each), each == condition);
          }
          expect(verdict.typed() && verdict.unexecuted(), true);
          expect(verdict.backend(), "b");
          expect(error.getStatus().getCode(), condition.code());
        });
    Verdict started = GrpcErrors.classify(GrpcErrors.modelNotLoaded("b", "m", true));
    expect(started.started() && !started.unexecuted(), true);
    expect(started.model(), "m");
  }

  private static void classifyReadsWhatAnErrorWraps() {
    Throwable typed = GrpcErrors.modelNotLoaded("rfdetr");
    Throwable words = said(Status.UNKNOWN, "vad: model not loaded");
    Metadata plain = new Metadata();
    plain.put(GrpcErrors.UNEXECUTED_KEY, "MODEL_NOT_LOADED");
    Metadata held = new Metadata();
    GrpcErrors.vouch(held, "m");
    Exception cyclic = new Exception("x");
    cyclic.initCause(new Exception("y", cyclic));
    check(null, null);
    check(cyclic, null);
    check(typed, Evidence.DETAILS);
    check(new Exception("predict", typed), Evidence.DETAILS);
    check(Status.FAILED_PRECONDITION.withCause(words).asException(), Evidence.TEXT);
    check(new Exception("vad: model not loaded"), Evidence.TEXT);
    check(new Exception("model not loaded", said(Status.NOT_FOUND, "no")), null);
    check(Status.UNKNOWN.withCause(words).asException(plain), Evidence.TRAILER);
    check(Status.UNKNOWN.withDescription("model not loaded").asException(held), null);
    expect(GrpcErrors.classify(Status.FAILED_PRECONDITION, null).evidence().get(), Evidence.CODE);
  }

  private static void check(Throwable error, Evidence evidence) {
    Verdict verdict = GrpcErrors.classify(error);
    expect(verdict.evidence(), Optional.ofNullable(evidence));
    expect(verdict.is(Condition.MODEL_NOT_LOADED), evidence != null);
  }

  private static StatusRuntimeException said(Status status, String message) {
    return status.withDescription(message).asRuntimeException();
  }

  private static void theDelayIsWithinLimits() {
    Duration longest = Duration.ofSeconds(315_576_000_000L);
    for (Duration[] each :
        new Duration[][] {
          {Duration.ofMillis(2500), Duration.ofMillis(2500)},
          {Duration.ofSeconds(-1), Duration.ZERO},
          {longest.plusNanos(1), longest},
        }) {
      Verdict verdict = GrpcErrors.classify(GrpcErrors.modelLoading("b", "", each[0]));
      expect(verdict.retryAfter().get(), each[1]);
    }
  }

  private static void wordsNameTheBackend() {
    expect(GrpcErrors.classify(said(Status.UNKNOWN, "vad: model not loaded")).backend(), "vad");
    expect(GrpcErrors.classify(said(Status.UNKNOWN, "model not loaded")).backend(), "");
    String mismatch = "vllm: model identity mismatch: loaded \"a\", requested \"b\"";
    expect(GrpcErrors.classify(said(Status.NOT_FOUND, mismatch)).backend(), "vllm");
  }

  private static void loneSurrogatesAreSentAsUtf8() {
    StatusRuntimeException error = GrpcErrors.modelNotLoaded("a\ud800b");
    expect(error.getStatus().getDescription(), "a\ufffdb: model not loaded");
    expect(GrpcErrors.classify(error).backend(), "a\ufffdb");
  }

  private static void theHeldModelFits() {
    for (String[] each :
        new String[][] {
          {"", "1"},
          {"tiny.en", "tiny.en"},
          {"a b%", "a%20b%25"},
          {"a".repeat(999), "a".repeat(255)},
          {"語".repeat(99), "%E8%AA%9E".repeat(28)},
          {"a".repeat(200) + "語".repeat(9), "a".repeat(200) + "%E8%AA%9E".repeat(6)},
        }) {
      Metadata trailers = new Metadata();
      GrpcErrors.vouch(trailers, each[0]);
      expect(trailers.get(GrpcErrors.HELD_KEY), each[1]);
    }
  }

  private static void aLongMessageIsReadToItsLimit() {
    String said = "x: model not loaded";
    String spaces = " ".repeat(16_384 - said.length());
    for (String each : new String[] {spaces + said, " " + spaces + said}) {
      Verdict verdict = GrpcErrors.classify(said(Status.UNKNOWN, each));
      expect(verdict.is(Condition.MODEL_NOT_LOADED), each.length() == 16_384);
    }
  }

  private static void aHostileMessageNeedsLittleStack() throws InterruptedException {
    for (String each :
        new String[] {
          "Exception iterating responses: ", "model a-", "voice: ", "error: ", "'", "\" '", "x: "
        }) {
      List<Object> judged = new ArrayList<>(); // stays empty if the thread fails
      StatusRuntimeException error = said(Status.UNKNOWN, each.repeat(1 << 14));
      Thread small =
          new Thread(null, () -> judged.add(GrpcErrors.classify(error)), "small", 256 << 10);
      small.start();
      small.join();
      expect(judged.size(), 1);
    }
  }
}
