// What the vectors do not show of grpcerrors.hpp.

#define GRPCERRORS_WITHOUT_GRPCPP
#include <iostream>

#include "grpcerrors.hpp"

namespace {

using namespace grpcerrors;

int failures = 0;

template <typename Got, typename Expected>
void Expect(const char* what, const Got& got, const Expected& expected) {
  if (got == expected) return;
  std::cerr << what << ": " << got << ", not " << expected << '\n';
  ++failures;
}

std::string Repeated(std::string_view text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

void TestEachConstructorBuildsItsCondition() {
  const std::pair<Error, std::string_view> built[] = {
      {ModelNotLoaded("b", "m"), kModelNotLoaded},
      {ModelMismatch("b", "m", "n"), kModelMismatch},
      {ModelLoading("b"), kModelLoading},
      {LiveTranscriptionUnsupported("b", "offline"), kLiveTranscriptionUnsupported},
      {StreamTranscriptionUnsupported("b", "offline"), kStreamTranscriptionUnsupported},
  };
  Expect("number of conditions", std::size(built), std::size(internal::kConditions));
  for (const auto& [error, reason] : built) {
    const Verdict verdict = Classify(error.code, error.message, error.trailers);
    Expect("reason", verdict.reason, reason);
    Expect("unexecuted", verdict.unexecuted, true);
    Expect("typed", verdict.Typed(), true);
    Expect("backend", verdict.Backend(), "b");
    Expect("is another", verdict.Is("MODEL_GONE"), false);
  }
  Expect("nothing is no condition", Verdict().Is(""), false);
}

void TestStartedAndDelay() {
  const Error started = ModelNotLoaded("b", "m", true);
  const Verdict verdict = Classify(started.code, started.message, started.trailers);
  Expect("unexecuted", verdict.unexecuted, false);
  Expect("started", verdict.Started(), true);
  Expect("model", verdict.Model(), "m");
  const std::pair<double, double> delays[] = {
      {2.5, 2.5}, {-1, 0}, {std::nan(""), 0}, {1e300, 315576000000}};
  for (const auto& [given, sent] : delays) {
    const Error loading = ModelLoading("b", "", given);
    Expect("delay", *Classify(14, "", loading.trailers).retry_after, sent);
  }
}

void TestWordsNameTheBackend() {
  Expect("words", Classify(2, "vad: model not loaded", {}).Backend(), "vad");
  Expect("no name", Classify(2, "model not loaded", {}).Backend(), "");
  const std::string mismatch = "vllm: model identity mismatch: loaded \"a\", requested \"b\"";
  Expect("mismatch", Classify(5, mismatch, {}).Backend(), "vllm");
}

void TestInvalidTextIsSentAsUtf8() {
  for (const char* name : {"a\xff" "b", "a\xc0" "b", "a\xf4" "b", "a\xe8" "b"}) {
    Expect("sent", ModelNotLoaded(name).message, "a\uFFFDb: model not loaded");
  }
  Expect("surrogate", ModelNotLoaded("\xed\xa0\x80").message,
         "\uFFFD\uFFFD\uFFFD: model not loaded");
}

void TestTheHeldModelFits() {
  const std::pair<std::string, std::string> models[] = {
      {"", "1"},
      {"tiny.en", "tiny.en"},
      {"a b%", "a%20b%25"},
      {std::string(999, 'a'), std::string(255, 'a')},
      {Repeated("語", 99), Repeated("%E8%AA%9E", 28)},
      {std::string(200, 'a') + Repeated("語", 9), std::string(200, 'a') + Repeated("%E8%AA%9E", 6)},
  };
  for (const auto& [model, value] : models) Expect("held", HeldTrailer(model).second, value);
}

void TestALongMessageIsReadToItsLimit() {
  const std::string words = ": model not loaded";
  const std::string before(kTextLimit - words.size(), ' ');
  Expect("within", Classify(2, before + words, {}).reason, "");
  Expect("text", Classify(2, "x" + words + std::string(1 << 20, 'y'), {}).reason, "");
  Expect("beyond", Classify(2, std::string(kTextLimit, ' ') + "x" + words, {}).reason, "");
  Expect("spaces", Classify(2, before.substr(1) + "x" + words, {}).reason, kModelNotLoaded);
  Expect("hostile", Classify(2, Repeated("model a-", 1 << 14), {}).reason, "");
}

}  // namespace

int main() {
  TestEachConstructorBuildsItsCondition();
  TestStartedAndDelay();
  TestWordsNameTheBackend();
  TestInvalidTextIsSentAsUtf8();
  TestTheHeldModelFits();
  TestALongMessageIsReadToItsLimit();
  return failures == 0 ? 0 : 1;
}
