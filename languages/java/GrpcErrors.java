package grpcerrors;

import com.google.protobuf.CodedInputStream;
import com.google.protobuf.CodedOutputStream;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The errors of CONTRACT.md for grpc-java: emits and recognizes them. Copy this file.
 *
 * <p>A server reports that it does not hold the model that a request needs, before any work:
 *
 * <pre>{@code
 * if (model == null) {
 *   observer.onError(GrpcErrors.modelNotLoaded("rfdetr"));
 *   return;
 * }
 * }</pre>
 *
 * <p>A client or a router asks what an error means:
 *
 * <pre>{@code
 * GrpcErrors.Verdict verdict = GrpcErrors.classify(exception);
 * if (verdict.is(GrpcErrors.Condition.MODEL_NOT_LOADED) && verdict.typed()) {
 *   drop(replica);
 * }
 * if (verdict.unexecuted()) { // and no message of a stream has been delivered
 *   resend();
 * }
 * }</pre>
 *
 * <p>It needs Java 11, grpc-api and protobuf-java (or -javalite). It reads and writes {@code
 * google.rpc.ErrorInfo} by itself, since older libraries of the common protos do not have it.
 */
public final class GrpcErrors {
  /** The {@code google.rpc.ErrorInfo.domain} of the contract. */
  public static final String DOMAIN = "grpcerrors";

  /** The trailer that holds a serialized {@code google.rpc.Status}. */
  public static final Metadata.Key<byte[]> DETAILS_KEY =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

  /** The trailer that says without protobuf that nothing was executed, and why. */
  public static final Metadata.Key<String> UNEXECUTED_KEY =
      Metadata.Key.of("grpcerrors-unexecuted", Metadata.ASCII_STRING_MARSHALLER);

  /** The trailer that names the model that a guard still held when the handler failed. */
  public static final Metadata.Key<String> HELD_KEY =
      Metadata.Key.of("grpcerrors-held", Metadata.ASCII_STRING_MARSHALLER);

  private static final int TRAILERS_LIMIT = 4096; // bytes, as HPACK counts them
  private static final int HEADER_OVERHEAD = 32; // what it charges for one (RFC 7541, section 4.1)
  private static final int HELD_LIMIT = 255; // bytes of the vouching trailer's value
  private static final int TEXT_LIMIT = 16_384; // characters that are read of all messages
  private static final int CHAIN_LIMIT = 1_000; // errors that are read of a chain of causes
  private static final long LONGEST_DELAY = 315_576_000_000L; // seconds of a protobuf Duration
  private static final String ERROR_INFO = "google.rpc.ErrorInfo";
  private static final String RETRY_INFO = "google.rpc.RetryInfo";

  private GrpcErrors() {}

  /** What can be wrong, with all that is needed to report and detect it. */
  public enum Condition {
    // BEGIN GENERATED: the tables of contract.json, by make_languages
    MODEL_NOT_LOADED(
        Code.FAILED_PRECONDITION,
        "{backend}: model not loaded",
        true,
        true,
        new Dialect( // LocalAI and others
            Arrays.asList(Code.FAILED_PRECONDITION, Code.UNKNOWN, Code.INTERNAL, Code.UNAVAILABLE, null),
            "{{lead}}(?:{{not_loaded}}|{{no_model_loaded}}|{{load_first}})",
            "{{of_another_kind}}{{not_loaded}}" +
                "|{{of_a_user}}(?:{{not_loaded}}|{{no_model_loaded}}|{{load_first}})" +
                "|(?:{{not_loaded}}|{{no_model_loaded}})(?:{{afterwards}})" +
                "|\\bpipeline is not loaded yet" +
                "|\\bcalled with no models loaded" +
                "|{{users_fault}}",
            true),
        new Dialect( // backends whose model went away under the call
            Arrays.asList(Code.FAILED_PRECONDITION, Code.UNKNOWN, Code.INTERNAL, Code.UNAVAILABLE),
            "{{lead}}{{gone}}",
            "{{of_another_kind}}{{gone}}" +
                "|{{of_a_user}}{{gone}}" +
                "|{{gone}}(?:{{afterwards}})" +
                "|{{users_fault}}",
            false),
        new Dialect( // Python handlers that use what only LoadModel sets
            Arrays.asList(Code.UNKNOWN, Code.INTERNAL),
            "^(?:(?:[Aa]n )?[Ee]rror(?: (?:generating|processing|running|during|in|while) \\w{1,40}(?: \\w{1,40})?)?: |(?:\\w{1,20} )?(?:\\w{2,20}tion|TTS|[Ii]nference|[Ss]ynthesis) (?:error|failed): |AttributeError: )?(?:'\\w{0,100}Servicer' object has no attribute '\\w{1,100}'|'NoneType' object has no attribute '(?:generate|predict|synthesize|transcribe)')$",
            "",
            false),
        new Dialect( // Triton Inference Server
            Arrays.asList(Code.UNAVAILABLE, Code.NOT_FOUND),
            "^Request for unknown model: '[^'\\n]*'(?: version -?\\d+)? (?:is not found|has no available versions)\\.?$",
            "",
            true),
        new Dialect( // TensorFlow Serving
            Arrays.asList(Code.NOT_FOUND),
            "^Servable not found for request: \\w{1,20}\\([^()\\n]{1,200}\\)$" +
                "|^Could not find (?:any versions|version \\d+) of model [^ \\t\\r\\n]{1,200}$",
            "",
            true),
        new Dialect( // OpenVINO Model Server
            Arrays.asList(Code.NOT_FOUND),
            "^(?:(?:Model|Mediapipe graph definition) with requested (?:name|version|name and/or version) is not found|(?:Model with requested version|Pipeline|Mediapipe) is retired)\\.?$",
            "",
            true),
        new Dialect( // TorchServe
            Arrays.asList(Code.INTERNAL, Code.NOT_FOUND),
            "^Model (?:not found: [^ \\t\\r\\n/]{1,200}|version: [^ \\t\\r\\n]{1,60} does not exist for model: [^ \\t\\r\\n]{1,200})(?:\\norg\\.pytorch\\.[\\w.]{1,200})?$",
            "",
            true),
        new Dialect( // KServe
            Arrays.asList(Code.UNKNOWN, Code.NOT_FOUND),
            "^Model with name [^ \\t\\r\\n]+ does not exist\\.?$",
            "",
            true),
        new Dialect( // KServe ModelMesh, NVIDIA Dynamo
            Arrays.asList(Code.NOT_FOUND),
            "^model not found$",
            "",
            true),
        new Dialect( // Seldon MLServer
            Arrays.asList(Code.NOT_FOUND),
            "^Model [^ \\t\\r\\n]+ (?:with version [^ \\t\\r\\n]+ )?not found\\.?$",
            "^Model file ",
            true),
        new Dialect( // Caikit
            Arrays.asList(Code.NOT_FOUND),
            "^Model (?:'[^'\\n]*'|[^ \\t\\r\\n]+ is) not loaded\\.?$",
            "",
            true),
        new Dialect( // Ray Serve
            Arrays.asList(Code.NOT_FOUND),
            "^Application '[^'\\n]*' not found\\. (?:Please ping|Ping) /ray\\.serve\\.[\\w./]{1,80} for available applications\\.?$",
            "",
            true)),
    MODEL_MISMATCH(
        Code.NOT_FOUND,
        "{backend}: model identity mismatch: loaded \"{loaded}\", requested \"{requested}\"",
        false,
        true,
        new Dialect( // the contract, and LocalAI in Go and Python
            Arrays.asList(Code.NOT_FOUND),
            "^(?P<backend>[^ \\t\\r\\n'\\\"`]{0,100}: )?model identity mismatch: loaded {{quoted_name}}, requested {{quoted_name}}$",
            "{{of_a_user}}model identity mismatch",
            true)),
    MODEL_LOADING(
        Code.UNAVAILABLE,
        "{backend}: model is loading",
        false,
        true,
        new Dialect( // the contract
            Arrays.asList(Code.UNKNOWN, Code.UNAVAILABLE),
            "^(?P<backend>[^ \\t\\r\\n'\\\"`]{0,100}: )?model is loading$",
            "{{of_a_user}}model is loading",
            true)),
    LIVE_TRANSCRIPTION_UNSUPPORTED(
        Code.UNIMPLEMENTED,
        "{backend}: live transcription unsupported: {reason}",
        true,
        true,
        new Dialect( // the contract
            Arrays.asList(Code.UNKNOWN, Code.UNIMPLEMENTED, null),
            "{{lead}}live transcription unsupported\\b",
            "{{of_a_user}}live transcription unsupported" +
                "|{{of_a_file}}",
            true),
        new Dialect( // stubs older than the RPC
            Arrays.asList(Code.UNKNOWN, null),
            "{{lead}}unimplemented\\b|^rpc error: code = unimplemented\\b",
            "{{of_a_user}}unimplemented" +
                "|{{of_a_file}}",
            true)),
    STREAM_TRANSCRIPTION_UNSUPPORTED(
        Code.UNIMPLEMENTED,
        "{backend}: streaming transcription unsupported: {reason}",
        false,
        true,
        new Dialect( // the contract
            Arrays.asList(Code.UNKNOWN, Code.UNIMPLEMENTED, null),
            "{{lead}}streaming transcription unsupported\\b",
            "{{of_a_user}}streaming transcription unsupported" +
                "|{{of_a_file}}",
            true));

    private static final class Shared {
      static final String PREFIX =
          "^(?:Exception (?:calling application|iterating responses): |Unexpected <class '[^'\\n]+'>: )*";
      static final String OPENING =
          "[\"`‘‚‛“„‟«‹「『]|(?:^|[^0-9A-Za-z_])[BbFfRrUu]{0,2}'";
      static final String CLOSING =
          "(?s)^.*([\"`‘’“”»›」』]|'(?:[^0-9A-Za-z_]|$))";
      static final String[][] FRAGMENTS = {
        {"quoted_name", "(?:'[^']*'|\"[^\"]*\")"},
        {"name", "(?: ''| [a-z]{0,40}[^ \\t\\r\\na-z_'\\\"`][^ \\t\\r\\n]{0,200})?"},
        {"model", "\\b(?:models?|engine|pipeline|weights)(?:(?:/| or | and )\\w+)?{{name}}"},
        {"not", "(?:(?:is|are|was|were|has|have)n't |(?:(?:is|are|was|were|has|have) )?(?:currently |still )?(?:not|never) )"},
        {"loaded", "(?:loaded|initiali[sz]ed)\\b"},
        {"not_loaded", "{{model}} {{not}}(?:been |yet |currently ){0,2}{{loaded}}"},
        {"no_model_loaded", "\\bno (?:active |valid )?(?:models?|engine|pipeline) (?:(?:is|are|was|were|has|have|been|yet|currently) ){0,3}{{loaded}}"},
        {"load_first", "(?:{{model}} (?:is|are|was|were) (?:empty|none|null|nil|missing)[.,:;]? )?(?:please )?(?:\\bcall (?:\\w{1,40}\\.)?load_?model(?:\\(\\))? (?:first|before)\\b|\\bload (?:a|the) model (?:first|before)\\b)|\\bload_?model(?:\\(\\))? (?:was|has) (?:not|never) (?:been )?called\\b"},
        {"gone", "{{model}} (?:is |was |has been |got )?(?:unloaded|evicted)\\b"},
        {"token", "[^ \\t\\r\\n'\\\"`]{1,64}"},
        {"work", "(?:backend|call|chat|completion|detection|diari[sz]ation|embedding|generation|inference|internal|model|prediction|request|rerank(?:ing)?|rpc|server|synthesis|transcription|translation|tts|asr|vad)"},
        {"wrapper", "(?:(?:{{token}}: ){0,2}rpc error: code = \\w{1,40} desc = |(?:\\[(?:error|fatal|warning)\\]:?|(?:error|fatal|warning):) |{{work}} (?:error|failed|failure): |(?:an )?error (?:during|in|while|when) (?:the |a )?(?:\\w{1,20}ing )?{{work}}: |error (?:generating|predicting|synthesi[sz]ing) \\w{1,20}: |error (?:processing|handling|serving|running|executing|calling) (?:the |a )?{{work}}: |(?:failed|unable|could not|cannot|can't) (?:to )?(?:generate|predict|infer|synthesi[sz]e|(?:run|process|handle|serve|execute|call) (?:the |a )?{{work}}): |(?:backend|node|replica|server|upstream|worker)(?: (?:''|{{token}}))?(?: (?:answers|answered|fails|failed|says|said))?: )"},
        {"lead", "(?:^(?:{{wrapper}}){0,3}(?P<backend>(?:''|{{token}})(?:: {{token}}){0,2}: )?(?:{{wrapper}}){0,2}(?:(?:the|this|your|our) )?(?:[\\w./-]{1,40}(?:'s)? )?)"},
        {"of_another_kind", "\\b(?:adapter|alignment|anti-?spoof|diarization|draft|lora|mmproj|projector|punctuation|refiner|speaker|vad|vocoder|query|rule|search|storage|template|for|of) "},
        {"thing", "(?:audio|argument|dir|directory|emotion|field|file|filename|folder|format|function|grammar|id|image|input|key|lang|language|locale|option|parameter|path|preset|prompt|role|speaker|style|text|token|tool|uri|url|user|value|video|voice)(?: (?:file|id|name|path))?"},
        {"of_a_user", "(?:^|[ \\t\\r\\n:;,(])(?:{{thing}}: (?:[^'\\\"`]|\\w'\\w){0,500}|(?:{{thing}}|at|bad|called|find|from|get|illegal|in|into|invalid|loading|lstat|missing|named|near|no|open|opening|parse|parsing|read|reading|stat|such|to|unexpected|unknown|unrecogni[sz]ed|unsupported|write|writing):? )"},
        {"of_a_file", "\\b(?:no such file|permission denied|is a directory|not a directory|file name too long)\\b|\\b(?:not found|does not exist)\\.?$"},
        {"users_fault", "\\b(?:no such|n[o']t (?:be )?found|doe(?:s not|sn't) exist|(?:not|un)[ -]?supported|permission denied|(?:is|not) an? (?:file|directory)|too long|is(?: not|n't) (?:an?|in|one|the|valid)|(?:is|:) (?:an? )?(?:bad|invalid|unknown|unrecogni[sz]ed)|must be (?:an?|in|one)|not (?:allowed|readable)|(?:cannot|could not|can't) (?:be )?(?:find|found|open|opened|read|write|written)|there (?:are|is)|has no|choose)\\b"},
        {"afterwards", " (?:as|from|with)\\b|\\.[a-z0-9]{2,5}(?:\\W|$)"},
      };
    }
    // END GENERATED

    private final Code code;
    private final String message; // with {name} for each field
    private final boolean codeAlone; // whether the bare code is enough
    private final boolean unexecuted; // whether it proves that nothing was executed
    private final Dialect[] dialects;

    Condition(
        Code code, String message, boolean codeAlone, boolean unexecuted, Dialect... dialects) {
      this.code = code;
      this.message = message;
      this.codeAlone = codeAlone;
      this.unexecuted = unexecuted;
      this.dialects = dialects;
    }

    /** Returns the code that carries it. */
    public Code code() {
      return code;
    }
  }

  /** How a system words a condition when it sends no details. */
  private static final class Dialect {
    final List<Code> codes; // under which these words count; null: an error without a code
    final Words pattern;
    final Words unless; // a message that matches this too does not count; null for no exception
    final boolean unexecuted; // whether who says so cannot have begun to execute the request

    Dialect(List<Code> codes, String pattern, String unless, boolean unexecuted) {
      this.codes = codes;
      this.pattern = new Words(pattern);
      this.unless = unless.isEmpty() ? null : new Words(unless);
      this.unexecuted = unexecuted;
    }
  }

  // ---- Errors to send --------------------------------------------------------------------------

  /** Returns FAILED_PRECONDITION: {@code backend} does not hold the model. */
  public static StatusRuntimeException modelNotLoaded(String backend) {
    return modelNotLoaded(backend, "", false);
  }

  /**
   * Returns FAILED_PRECONDITION: {@code backend} does not hold the model.
   *
   * @param model the model's identity, or "" if it is not known
   * @param started whether the handler had begun to work on the request
   */
  public static StatusRuntimeException modelNotLoaded(
      String backend, String model, boolean started) {
    return error(
        Condition.MODEL_NOT_LOADED, Map.of("backend", backend, "model", model), started, null);
  }

  /** Returns NOT_FOUND: {@code backend} holds {@code loaded}, but the request names another. */
  public static StatusRuntimeException modelMismatch(
      String backend, String loaded, String requested) {
    return error(
        Condition.MODEL_MISMATCH,
        Map.of("backend", backend, "loaded", loaded, "requested", requested),
        false,
        null);
  }

  /**
   * Returns UNAVAILABLE: {@code backend} is loading the model.
   *
   * @param model the model's identity, or "" if it is not known
   * @param retryAfter how long the caller should wait before it asks again
   */
  public static StatusRuntimeException modelLoading(
      String backend, String model, Duration retryAfter) {
    return error(
        Condition.MODEL_LOADING, Map.of("backend", backend, "model", model), false, retryAfter);
  }

  /** Returns UNIMPLEMENTED: {@code backend}, or its model, cannot transcribe live. */
  public static StatusRuntimeException liveTranscriptionUnsupported(
      String backend, String reason) {
    return error(
        Condition.LIVE_TRANSCRIPTION_UNSUPPORTED,
        Map.of("backend", backend, "reason", reason),
        false,
        null);
  }

  /** Returns UNIMPLEMENTED: {@code backend}, or its model, cannot stream transcriptions. */
  public static StatusRuntimeException streamTranscriptionUnsupported(
      String backend, String reason) {
    return error(
        Condition.STREAM_TRANSCRIPTION_UNSUPPORTED,
        Map.of("backend", backend, "reason", reason),
        false,
        null);
  }

  /**
   * Marks the failure of a handler whose model is still here: whatever failed, it is not the model.
   * Never call it for an error that this class has built.
   *
   * @param model the model's identity, or "" if it has none
   */
  public static void vouch(Metadata trailers, String model) {
    String value = percentEncoded(cut(model, HELD_LIMIT));
    for (int limit = HELD_LIMIT - 1; value.length() > HELD_LIMIT; limit--) {
      value = percentEncoded(cut(model, limit));
    }
    trailers.put(HELD_KEY, value.isEmpty() ? "1" : value);
  }

  /**
   * Returns the error of a condition with any fields; too long ones are cut.
   *
   * @param fields those that the condition's message names, and others to send with it
   * @param started whether the handler had begun to work on the request, so that nothing proves
   *     that it was not executed
   * @param retryAfter how long the caller should wait, or null
   */
  public static StatusRuntimeException error(
      Condition condition, Map<String, String> fields, boolean started, Duration retryAfter) {
    StatusRuntimeException error = build(condition, fields, started, retryAfter, TRAILERS_LIMIT);
    if (trailersSize(error) <= TRAILERS_LIMIT) {
      return error;
    }
    int longest = 0;
    for (int step = TRAILERS_LIMIT / 2; step > 0; step /= 2) {
      error = build(condition, fields, started, retryAfter, longest + step);
      longest += trailersSize(error) <= TRAILERS_LIMIT ? step : 0;
    }
    return build(condition, fields, started, retryAfter, longest);
  }

  /** Builds the error of a condition, with every value cut to the same number of bytes. */
  private static StatusRuntimeException build(
      Condition condition,
      Map<String, String> fields,
      boolean started,
      Duration retryAfter,
      int longest) {
    Map<String, String> values = new TreeMap<>();
    fields.forEach((name, value) -> values.put(name, cut(value, longest)));
    String message =
        FIELD
            .matcher(condition.message)
            .replaceAll(it -> Matcher.quoteReplacement(values.getOrDefault(it.group(1), "")));
    values.values().removeIf(String::isEmpty);
    if (started) {
      values.put("started", "true");
    }
    Metadata trailers = new Metadata();
    trailers.put(DETAILS_KEY, encode(condition, message, values, retryAfter));
    if (condition.unexecuted && !started) {
      trailers.put(UNEXECUTED_KEY, condition.name());
    }
    return condition.code.toStatus().withDescription(message).asRuntimeException(trailers);
  }

  private static final Pattern FIELD = Pattern.compile("\\{(\\w+)\\}");

  /** Counts the bytes of an error's trailers as HPACK does; the message is percent-encoded. */
  private static int trailersSize(StatusRuntimeException error) {
    int size = "grpc-status00grpc-message".length() + 2 * HEADER_OVERHEAD;
    for (byte each : error.getStatus().getDescription().getBytes(StandardCharsets.UTF_8)) {
      size += unescaped(each) ? 1 : 3;
    }
    int details = error.getTrailers().get(DETAILS_KEY).length;
    size += DETAILS_KEY.name().length() + HEADER_OVERHEAD + (details + 2) / 3 * 4;
    String plain = error.getTrailers().get(UNEXECUTED_KEY);
    if (plain != null) {
      size += UNEXECUTED_KEY.name().length() + HEADER_OVERHEAD + plain.length();
    }
    return size;
  }

  /** Cuts a text to at most {@code limit} bytes of UTF-8; lone surrogates become U+FFFD. */
  private static String cut(String text, int limit) {
    StringBuilder result = new StringBuilder();
    int size = 0;
    for (int at = 0; at < text.length(); ) {
      int character = text.codePointAt(at);
      at += Character.charCount(character);
      if (character >= 0xD800 && character <= 0xDFFF) {
        character = 0xFFFD;
      }
      size += character < 0x80 ? 1 : character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
      if (size > limit) {
        break;
      }
      result.appendCodePoint(character);
    }
    return result.toString();
  }

  private static boolean unescaped(byte each) {
    return each >= 0x20 && each <= 0x7E && each != '%';
  }

  private static String percentEncoded(String text) {
    StringBuilder result = new StringBuilder();
    for (byte each : text.getBytes(StandardCharsets.UTF_8)) {
      if (unescaped(each) && each != ' ') {
        result.append((char) each);
      } else {
        result.append(String.format("%%%02X", each));
      }
    }
    return result.toString();
  }

  /** Serializes a {@code google.rpc.Status}; the bytes are deterministic. */
  private static byte[] encode(
      Condition condition, String message, Map<String, String> metadata, Duration retryAfter) {
    byte[] info =
        message(
            out -> {
              out.writeString(1, condition.name());
              out.writeString(2, DOMAIN);
              for (Map.Entry<String, String> each : metadata.entrySet()) {
                out.writeByteArray(
                    3,
                    message(
                        entry -> {
                          entry.writeString(1, each.getKey());
                          entry.writeString(2, each.getValue());
                        }));
              }
            });
    return message(
        out -> {
          out.writeInt32(1, condition.code.value());
          out.writeString(2, message);
          out.writeByteArray(3, packed(ERROR_INFO, info));
          if (retryAfter != null) {
            out.writeByteArray(3, packed(RETRY_INFO, retryInfo(retryAfter)));
          }
        });
  }

  private static byte[] retryInfo(Duration wait) {
    Duration least = wait.isNegative() ? Duration.ZERO : wait;
    Duration longest = Duration.ofSeconds(LONGEST_DELAY);
    Duration delay = least.compareTo(longest) > 0 ? longest : least;
    byte[] duration =
        message(
            out -> {
              if (delay.getSeconds() != 0) {
                out.writeInt64(1, delay.getSeconds());
              }
              if (delay.getNano() != 0) {
                out.writeInt32(2, delay.getNano());
              }
            });
    return message(out -> out.writeByteArray(1, duration));
  }

  private static byte[] packed(String type, byte[] value) {
    return message(
        out -> {
          out.writeString(1, "type.googleapis.com/" + type);
          out.writeByteArray(2, value);
        });
  }

  private interface Writing {
    void to(CodedOutputStream out) throws IOException;
  }

  private static byte[] message(Writing writing) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    CodedOutputStream out = CodedOutputStream.newInstance(bytes);
    try {
      writing.to(out);
      out.flush();
    } catch (IOException impossible) {
      throw new UncheckedIOException(impossible);
    }
    return bytes.toByteArray();
  }

  // ---- What an error means ---------------------------------------------------------------------

  /** The rung that decided, strongest first. */
  public enum Evidence {
    DETAILS,
    TRAILER,
    TEXT,
    CODE
  }

  /** What an error means, and on what evidence. */
  public static final class Verdict {
    private final Condition condition;
    private final Evidence evidence;
    private final boolean unexecuted;
    private final Map<String, String> fields;
    private final Duration retryAfter;
    private final String held;

    private Verdict(
        Condition condition,
        Evidence evidence,
        boolean unexecuted,
        Map<String, String> fields,
        Duration retryAfter,
        String held) {
      this.condition = condition;
      this.evidence = evidence;
      this.unexecuted = unexecuted;
      this.fields = Collections.unmodifiableMap(fields);
      this.retryAfter = retryAfter;
      this.held = held;
    }

    private Verdict withHeld(String model) {
      return new Verdict(condition, evidence, unexecuted, fields, retryAfter, model);
    }

    /** Returns whether the error means this condition. */
    public boolean is(Condition expected) {
      return condition == expected;
    }

    /** Returns what is wrong; empty for nothing that the contract knows. */
    public Optional<Condition> condition() {
      return Optional.ofNullable(condition);
    }

    /**
     * Returns the rung that decided, empty if none did. Details and the plain trailer decide for no
     * condition if they give a reason that this version does not know.
     */
    public Optional<Evidence> evidence() {
      return Optional.ofNullable(evidence);
    }

    /** Returns whether the sender said it by the contract: in details, or by the plain trailer. */
    public boolean typed() {
      return evidence == Evidence.DETAILS || evidence == Evidence.TRAILER;
    }

    /** Returns whether it is proved that the request was not executed. */
    public boolean unexecuted() {
      return unexecuted;
    }

    /** Returns whether the handler had begun to work on the request before it failed. */
    public boolean started() {
      return "true".equals(fields.get("started"));
    }

    /** Returns the ErrorInfo's metadata, or the {@code backend} that the words name. */
    public Map<String, String> fields() {
      return fields;
    }

    /** Returns the name of the backend that reports it, or "". */
    public String backend() {
      return fields.getOrDefault("backend", "");
    }

    /** Returns the identity of the model that it is about, or "". */
    public String model() {
      return fields.getOrDefault("model", "");
    }

    /** Returns how long the sender asks to wait, if it does. */
    public Optional<Duration> retryAfter() {
      return Optional.ofNullable(retryAfter);
    }

    /** Returns the model that a guard still held when the handler failed; "1": without a name. */
    public Optional<String> held() {
      return Optional.ofNullable(held);
    }
  }

  private static final Verdict NOTHING = new Verdict(null, null, false, Map.of(), null, null);

  /**
   * Returns what an error means, or one of its causes: the strongest evidence in any of them
   * decides; between equals, the outermost.
   */
  public static Verdict classify(Throwable error) {
    List<Facts> found = new ArrayList<>();
    Set<Throwable> seen = Collections.newSetFromMap(new IdentityHashMap<>());
    int room = TEXT_LIMIT;
    for (Throwable each = error;
        each != null && seen.add(each) && seen.size() <= CHAIN_LIMIT;
        each = each.getCause()) {
      Facts facts;
      if (each instanceof StatusRuntimeException) {
        StatusRuntimeException status = (StatusRuntimeException) each;
        facts = new Facts(status.getStatus(), status.getTrailers(), room);
      } else if (each instanceof StatusException) {
        StatusException status = (StatusException) each;
        facts = new Facts(status.getStatus(), status.getTrailers(), room);
      } else {
        facts = new Facts(null, each.getMessage(), null, room);
      }
      room -= facts.text.codePointCount(0, facts.text.length());
      found.add(facts);
    }
    return judge(found);
  }

  /**
   * Returns what the status with which a call has ended means.
   *
   * @param trailers the trailers of the call, or null
   */
  public static Verdict classify(Status status, Metadata trailers) {
    return judge(List.of(new Facts(status, trailers, TEXT_LIMIT)));
  }

  private static Verdict judge(List<Facts> found) {
    String held =
        found.stream().map(it -> it.held).filter(Objects::nonNull).findFirst().orElse(null);
    Verdict trailer = null;
    for (Facts each : found) {
      Verdict typed = each.typed();
      if (typed != null && typed.evidence == Evidence.DETAILS) {
        return typed.withHeld(held);
      }
      trailer = trailer == null ? typed : trailer;
    }
    if (trailer != null || held != null) {
      return (trailer == null ? NOTHING : trailer).withHeld(held);
    }
    // An error without a code may quote the one that it wraps, and only a code shows whether the
    // words are a backend's or a user's. So it counts only if no error has a code.
    boolean coded = found.stream().anyMatch(it -> it.code != null);
    Verdict alone = null;
    for (Facts each : found) {
      if (coded && each.code == null) {
        continue;
      }
      Verdict said = byWords(each.code, each.text);
      if (said != null) {
        return said;
      }
      for (Condition condition : Condition.values()) {
        if (alone == null && condition.codeAlone && condition.code == each.code) {
          alone = new Verdict(condition, Evidence.CODE, false, Map.of(), null, null);
        }
      }
    }
    // An ErrorInfo of any domain says what the sender meant by its code.
    boolean explained = found.stream().anyMatch(it -> !it.infos.isEmpty());
    return alone == null || explained ? NOTHING : alone;
  }

  /** What one error says. */
  private static final class Facts {
    final Code code; // null: it is no gRPC status
    final String text;
    final List<Info> infos = new ArrayList<>();
    final String held;
    Duration retryAfter;

    Facts(Status status, Metadata trailers, int room) {
      this(status.getCode(), status.getDescription(), trailers, room);
    }

    Facts(Code code, String text, Metadata trailers, int room) {
      this.code = code;
      String given = text == null ? "" : text;
      boolean fits = given.codePointCount(0, given.length()) <= room;
      this.text = fits ? given : given.substring(0, given.offsetByCodePoints(0, room));
      Metadata all = trailers == null ? new Metadata() : trailers;
      byte[] details = oneValue(all, DETAILS_KEY);
      if (details != null) {
        readDetails(details);
      }
      String plain = oneValue(all, UNEXECUTED_KEY);
      if (plain != null && !plain.trim().isEmpty() && !plain.trim().endsWith("/")) {
        infos.add(new Info(plain.trim()));
      }
      this.held = heldModel(all);
    }

    private void readDetails(byte[] bytes) {
      List<String> types = new ArrayList<>();
      List<byte[]> values = new ArrayList<>();
      boolean good =
          read(
              bytes,
              (tag, in) -> {
                switch (tag) {
                  case STRING_2:
                    in.readStringRequireUtf8();
                    return true;
                  case BYTES_3:
                    Packed any = new Packed(in.readByteArray());
                    types.add(any.type);
                    values.add(any.value);
                    return true;
                  default:
                    return false;
                }
              });
      for (int i = 0; good && i < types.size(); i++) {
        if (types.get(i).equals(ERROR_INFO)) {
          Info info = new Info();
          if (read(values.get(i), info::read)) {
            infos.add(info);
          }
        } else if (types.get(i).equals(RETRY_INFO)) {
          Delay delay = new Delay();
          if (retryAfter == null && read(values.get(i), delay::read)) {
            retryAfter = delay.get();
          }
        }
      }
    }

    /** Judges by the ErrorInfo of the contract, else by the plain trailer; null for neither. */
    Verdict typed() {
      Info known = null;
      for (Info each : infos) {
        if (!each.domain.equals(DOMAIN)) {
          continue;
        }
        if (known == null) {
          known = each;
        } else if (!each.plain && !each.reason.equals(known.reason)) {
          return null; // an error has one ErrorInfo: these contradict each other
        }
      }
      if (known == null) {
        return null;
      }
      Condition condition = null;
      for (Condition each : Condition.values()) {
        condition = each.name().equals(known.reason) ? each : condition;
      }
      boolean started = "true".equals(known.metadata.get("started"));
      return new Verdict(
          condition,
          known.plain ? Evidence.TRAILER : Evidence.DETAILS,
          known.plain || (condition != null && condition.unexecuted && !started),
          known.metadata,
          known.plain ? null : retryAfter,
          null);
    }
  }

  /**
   * Returns the one value of a trailer, or null. A proxy may have doubled it; different values
   * contradict each other.
   */
  private static <T> T oneValue(Metadata trailers, Metadata.Key<T> key) {
    T found = null;
    Iterable<T> values = trailers.getAll(key);
    for (T each : values == null ? List.<T>of() : values) {
      if (found != null && !Arrays.deepEquals(new Object[] {found}, new Object[] {each})) {
        return null;
      }
      found = each;
    }
    return found;
  }

  private static String heldModel(Metadata trailers) {
    Iterable<String> values = trailers.getAll(HELD_KEY);
    for (String each : values == null ? List.<String>of() : values) {
      if (!each.isEmpty()) {
        return percentDecoded(each);
      }
    }
    return null;
  }

  private static String percentDecoded(String text) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    for (int at = 0; at < text.length(); at++) {
      boolean encoded = text.charAt(at) == '%' && at + 2 < text.length();
      int high = encoded ? Character.digit(text.charAt(at + 1), 16) : -1;
      int low = encoded ? Character.digit(text.charAt(at + 2), 16) : -1;
      if (high >= 0 && low >= 0) {
        bytes.write(high * 16 + low);
        at += 2;
      } else {
        bytes.write(text.charAt(at));
      }
    }
    return new String(bytes.toByteArray(), StandardCharsets.UTF_8);
  }

  // The tags of protobuf's wire format: the number of a field, and the type of its value.
  private static final int NUMBER_1 = 1 << 3;
  private static final int NUMBER_2 = 2 << 3;
  private static final int STRING_1 = 1 << 3 | 2;
  private static final int STRING_2 = 2 << 3 | 2;
  private static final int BYTES_3 = 3 << 3 | 2;

  private interface Reading {
    /** Reads the value of a field; returns false for one that is of no interest. */
    boolean field(int tag, CodedInputStream in) throws IOException;
  }

  /** Reads each field of a message; returns false if the bytes cannot be decoded. */
  private static boolean read(byte[] bytes, Reading reading) {
    CodedInputStream in = CodedInputStream.newInstance(bytes);
    try {
      for (int tag = in.readTag(); tag != 0; tag = in.readTag()) {
        if (!reading.field(tag, in) && !in.skipField(tag)) {
          return false; // the end of a group that has not begun
        }
      }
      return true;
    } catch (IOException malformed) {
      return false;
    }
  }

  /** A {@code google.protobuf.Any}. */
  private static final class Packed {
    String type = "";
    byte[] value = {};

    Packed(byte[] bytes) throws IOException {
      if (!GrpcErrors.read(bytes, this::read)) {
        throw new IOException("malformed");
      }
    }

    private boolean read(int tag, CodedInputStream in) throws IOException {
      if (tag == STRING_1) {
        String url = in.readStringRequireUtf8(); // any prefix will do
        type = url.substring(url.lastIndexOf('/') + 1);
      } else if (tag == STRING_2) {
        value = in.readByteArray();
      }
      return tag == STRING_1 || tag == STRING_2;
    }
  }

  /** A {@code google.rpc.ErrorInfo}, or what the plain trailer says. */
  private static final class Info {
    String domain = "";
    String reason = "";
    final Map<String, String> metadata = new TreeMap<>();
    final boolean plain;

    Info() {
      plain = false;
    }

    Info(String trailer) {
      int slash = trailer.lastIndexOf('/');
      domain = slash > 0 ? trailer.substring(0, slash) : DOMAIN;
      reason = trailer.substring(slash + 1);
      plain = true;
    }

    boolean read(int tag, CodedInputStream in) throws IOException {
      switch (tag) {
        case STRING_1:
          reason = in.readStringRequireUtf8();
          return true;
        case STRING_2:
          domain = in.readStringRequireUtf8();
          return true;
        case BYTES_3:
          Entry entry = new Entry();
          if (!GrpcErrors.read(in.readByteArray(), entry::read)) {
            throw new IOException("malformed");
          }
          metadata.put(entry.key, entry.value);
          return true;
        default:
          return false;
      }
    }
  }

  private static final class Entry {
    String key = "";
    String value = "";

    boolean read(int tag, CodedInputStream in) throws IOException {
      if (tag == STRING_1) {
        key = in.readStringRequireUtf8();
      } else if (tag == STRING_2) {
        value = in.readStringRequireUtf8();
      }
      return tag == STRING_1 || tag == STRING_2;
    }
  }

  /** A {@code google.rpc.RetryInfo}, and the Duration in it. */
  private static final class Delay {
    long seconds;
    int nanos;

    boolean read(int tag, CodedInputStream in) throws IOException {
      if (tag != STRING_1) {
        return false;
      }
      if (!GrpcErrors.read(in.readByteArray(), this::readDuration)) {
        throw new IOException("malformed");
      }
      return true;
    }

    private boolean readDuration(int tag, CodedInputStream in) throws IOException {
      if (tag == NUMBER_1) {
        seconds = in.readInt64();
      } else if (tag == NUMBER_2) {
        nanos = in.readInt32();
      }
      return tag == NUMBER_1 || tag == NUMBER_2;
    }

    /** Returns the delay; null for one that no sender means. */
    Duration get() {
      boolean meant =
          seconds >= 0 && seconds <= LONGEST_DELAY && nanos >= 0 && nanos < 1_000_000_000;
      return meant ? Duration.ofSeconds(seconds, nanos) : null;
    }
  }

  // ---- Words -----------------------------------------------------------------------------------

  /** A pattern in RE2 syntax. One that begins with ^ is a whole sentence, in which case matters. */
  private static final class Words {
    static final Words PREFIX = new Words(Condition.Shared.PREFIX);
    static final Words OPENING = new Words(Condition.Shared.OPENING);
    static final Words CLOSING = new Words(Condition.Shared.CLOSING);

    final boolean whole;
    private final Pattern pattern;

    Words(String source) {
      whole = source.startsWith("^");
      // Java's \b is not ASCII before version 19, and its $ ignores a newline at the end.
      String translated =
          expanded(source)
              .replace("\\b", "(?:(?<=\\w)(?!\\w)|(?<!\\w)(?=\\w))")
              .replace("$", "\\z")
              .replace("(?P<", "(?<");
      // A group that may be repeated for ever takes stack each time, unless it is possessive.
      translated += translated.endsWith(")*") ? "+" : "";
      pattern = Pattern.compile(translated, whole ? 0 : Pattern.CASE_INSENSITIVE);
    }

    /** Puts the fragments that patterns share in their places. */
    private static String expanded(String source) {
      String result = source;
      for (String[] fragment : Condition.Shared.FRAGMENTS) {
        String place = "{{" + fragment[0] + "}}";
        if (result.contains(place)) {
          result = result.replace(place, expanded(fragment[1]));
        }
      }
      return result;
    }

    /** Returns the leftmost match, or null. */
    Matcher search(String text) {
      Matcher matcher = pattern.matcher(text);
      return matcher.find() ? matcher : null;
    }
  }

  /** Judges by the words that come first in a message, since those that follow may be quoted. */
  private static Verdict byWords(Code code, String message) {
    String whole = stripped(message);
    String unquoted = unquoted(whole);
    int first = Integer.MAX_VALUE;
    Verdict verdict = null;
    for (Condition condition : Condition.values()) {
      for (Dialect dialect : condition.dialects) {
        if (!dialect.codes.contains(code)) {
          continue;
        }
        String text = dialect.pattern.whole ? whole : unquoted;
        Matcher match = dialect.pattern.search(text);
        if (match == null
            || match.start() >= first
            || (dialect.unless != null && dialect.unless.search(text) != null)) {
          continue;
        }
        first = match.start();
        String named = match.groupCount() > 0 ? match.group(1) : null;
        String before = named != null ? named : text.substring(0, first);
        Map<String, String> fields =
            before.endsWith(": ")
                ? Map.of("backend", before.substring(0, before.length() - 2))
                : Map.of();
        boolean unexecuted = condition.unexecuted && dialect.unexecuted;
        verdict = new Verdict(condition, Evidence.TEXT, unexecuted, fields, null, null);
      }
    }
    return verdict;
  }

  /** Removes white space around a message, and what grpcio puts before an exception. */
  private static String stripped(String message) {
    int first = 0;
    int end = message.length();
    while (first < end && " \t\r\n".indexOf(message.charAt(first)) >= 0) {
      first++;
    }
    while (first < end && " \t\r\n".indexOf(message.charAt(end - 1)) >= 0) {
      end--;
    }
    String text = message.substring(first, end);
    Matcher prefix = Words.PREFIX.search(text);
    return prefix == null ? text : text.substring(prefix.end());
  }

  /**
   * Removes what is quoted in a message: all from the first opening mark to the last closing mark,
   * whatever the marks are, because a user may write some too.
   */
  private static String unquoted(String text) {
    Matcher opening = Words.OPENING.search(text);
    if (opening == null) {
      return text;
    }
    String rest = text.substring(opening.end());
    Matcher closing = Words.CLOSING.search(rest);
    String after = closing == null ? "" : rest.substring(closing.start(1) + 1);
    return text.substring(0, opening.end() - 1) + "''" + after;
  }
}
