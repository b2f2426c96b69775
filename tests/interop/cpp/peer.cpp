// The C++ half of tests/interop: a client and a server on grpc++.
//
//   peer client ADDRESS VECTORS  asks a server for every row; prints a line for each
//   peer server VECTORS          prints its address, serves every row until stdin ends

#include <functional>
#include <iostream>
#include <stdexcept>

#include "errors.grpc.pb.h"
#include "rows.hpp"

namespace {

using google::protobuf::StringValue;
using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

// ---- Server

using Answer = std::function<Status(ServerContext*)>;

// What C++ backends without the contract say.
const std::map<std::string, Status> kNative = {
    {"native/words", {StatusCode::FAILED_PRECONDITION, "rfdetr: model not loaded"}},
    {"native/plain", {StatusCode::UNKNOWN, "rfdetr: model not loaded"}},
    {"native/wrapped", {StatusCode::INTERNAL, "Inference failed: rfdetr: model not loaded"}},
    {"native/code", {StatusCode::FAILED_PRECONDITION, "warming up"}},
    {"native/mismatch",
     {StatusCode::NOT_FOUND, "rfdetr: model identity mismatch: loaded \"a\", requested \"b\""}},
    {"native/quoted", {StatusCode::INVALID_ARGUMENT, "cannot parse \"model not loaded\""}},
    {"native/foreign",
     {StatusCode::FAILED_PRECONDITION, "quota",
      // A google.rpc.Status with an ErrorInfo of reason QUOTA and domain example.com.
      rows::Unhex("0809120571756f74611a400a28747970652e676f6f676c65617069732e636f6d2f676f6f676c652e"
                  "7270632e4572726f72496e666f12140a0551554f5441120b6578616d706c652e636f6d")}},
    {"native/other", {StatusCode::UNKNOWN, "out of memory"}},
};

class Errors final : public interop::Errors::Service {
 public:
  explicit Errors(const std::vector<rows::Row>& all) {
    for (const auto& [name, status] : kNative) {
      answers_[name] = [status = status](ServerContext*) { return status; };
    }
    for (const rows::Row& row : all) {
      if (row.Kind() == "build") {
        const auto built = [row](ServerContext* context) {
          return grpcerrors::Abort(context, rows::Built(row));
        };
        answers_["build/" + row.Name()] = answers_["refuse/" + row.Name()] = built;
      } else if (row.Kind() == "detect") {
        answers_["detect/" + row.Name()] = [row](ServerContext* context) {
          for (const auto& [name, value] : row.trailers) {
            context->AddTrailingMetadata(name, value);
          }
          return Status(static_cast<StatusCode>(std::stoi(row.cells[2])), row.cells[3]);
        };
      }
    }
  }

  Status Unary(ServerContext* context, const StringValue* request, StringValue*) override {
    return Fail(context, request->value());
  }

  Status ServerStream(ServerContext* context, const StringValue* request,
                      grpc::ServerWriter<StringValue>* writer) override {
    if (request->value().rfind("refuse/", 0) != 0) writer->Write(*request);
    return Fail(context, request->value());
  }

  Status ClientStream(ServerContext* context, grpc::ServerReader<StringValue>* reader,
                      StringValue*) override {
    StringValue request;
    reader->Read(&request);
    return Fail(context, request.value());
  }

  Status Bidi(ServerContext* context,
              grpc::ServerReaderWriter<StringValue, StringValue>* stream) override {
    StringValue request;
    stream->Read(&request);
    if (request.value().rfind("refuse/", 0) != 0) stream->Write(request);
    return Fail(context, request.value());
  }

 private:
  Status Fail(ServerContext* context, const std::string& row) {
    if (row.rfind("held/", 0) == 0) {
      const auto [name, value] = grpcerrors::HeldTrailer(row.substr(5));
      context->AddTrailingMetadata(name, value);
      return {StatusCode::UNKNOWN, "x: model not loaded"};
    }
    const auto found = answers_.find(row);
    if (found == answers_.end()) return {StatusCode::OUT_OF_RANGE, "no row " + row};
    return found->second(context);
  }

  std::map<std::string, Answer> answers_;
};

void Serve(const std::vector<rows::Row>& all) {
  Errors service(all);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  std::cout << "127.0.0.1:" << port << std::endl;
  std::cin.ignore(std::numeric_limits<std::streamsize>::max());
  server->Shutdown();
}

// ---- Client

// Makes a call of one shape; returns its status, and counts the messages before it.
using Call = std::function<Status(interop::Errors::Stub*, grpc::ClientContext*,
                                  const StringValue& request, int* received)>;

const std::pair<const char*, Call> kShapes[] = {
    {"Unary",
     [](auto* stub, auto* context, auto& request, int*) {
       StringValue reply;
       return stub->Unary(context, request, &reply);
     }},
    {"ServerStream",
     [](auto* stub, auto* context, auto& request, int* received) {
       const auto reader = stub->ServerStream(context, request);
       for (StringValue reply; reader->Read(&reply);) ++*received;
       return reader->Finish();
     }},
    {"ClientStream",
     [](auto* stub, auto* context, auto& request, int*) {
       StringValue reply;
       const auto writer = stub->ClientStream(context, &reply);
       writer->Write(request);
       writer->WritesDone();
       return writer->Finish();
     }},
    {"Bidi",
     [](auto* stub, auto* context, auto& request, int* received) {
       const auto stream = stub->Bidi(context);
       stream->Write(request);
       stream->WritesDone();
       for (StringValue reply; stream->Read(&reply);) ++*received;
       return stream->Finish();
     }},
};

void Ask(const std::string& address, const std::vector<rows::Row>& all) {
  const auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  const auto stub = interop::Errors::NewStub(channel);
  for (const rows::Row& row : all) {
    if (row.Kind() != "build" && row.Kind() != "detect") continue;
    for (const auto& [shape, call] : kShapes) {
      grpc::ClientContext context;
      StringValue request;
      request.set_value(row.Kind() + "/" + row.Name());
      int received = 0;
      const Status status = call(stub.get(), &context, request, &received);
      const grpcerrors::Verdict verdict = grpcerrors::Classify(status, context);
      rows::Cells cells = {request.value(), shape, std::to_string(received),
                           std::to_string(status.error_code()), status.error_message()};
      for (const auto& more :
           {rows::Answers(verdict),
            rows::Joined(rows::Pairs(verdict.fields.begin(), verdict.fields.end()))}) {
        cells.insert(cells.end(), more.begin(), more.end());
      }
      std::cout << rows::Line(cells);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() == 3 && arguments[0] == "client") {
    Ask(arguments[1], rows::Read(argv[3]));
  } else if (arguments.size() == 2 && arguments[0] == "server") {
    Serve(rows::Read(argv[2]));
  } else {
    std::cerr << "usage: peer client ADDRESS VECTORS | server VECTORS\n";
    return 2;
  }
}
