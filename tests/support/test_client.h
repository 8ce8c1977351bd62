// A client of a ServerState without a network: a line in, the reply's bytes out. And short spellings of replies.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/client.h"
#include "server/text.h"

namespace kelda::testing {

class TestClient {
 public:
  explicit TestClient(server::ServerState& state) : client_(state, std::make_shared<server::ClientInfo>()) {
    (void)state.clients.add(client_.info, 1000);
  }
  ~TestClient() { client_.server.clients.remove(*client_.info); }

  // The words of an inline command. Waits for durability, as a connection does.
  std::string operator()(std::string_view line) {
    const auto words = server::split_line(line);
    return call({words->begin(), words->end()});
  }
  std::string call(const std::vector<std::string>& words) {
    const std::vector<std::string_view> args(words.begin(), words.end());
    client_.read_clock();
    client_.execute(args);
    (void)client_.make_durable();
    return std::exchange(client_.out, {});
  }
  server::Client& client() { return client_; }

 private:
  server::Client client_;
};

inline std::string bulk(std::string_view text) {
  return "$" + std::to_string(text.size()) + "\r\n" + std::string(text) + "\r\n";
}
inline std::string integer(std::int64_t value) {
  return ":" + std::to_string(value) + "\r\n";
}
inline std::string bulks(const std::vector<std::string>& texts) {
  std::string out = "*" + std::to_string(texts.size()) + "\r\n";
  for (const auto& text : texts) out += bulk(text);
  return out;
}
inline const std::string kOk = "+OK\r\n", kNull = "$-1\r\n", kQueued = "+QUEUED\r\n", kNullArray = "*-1\r\n";

}  // namespace kelda::testing
