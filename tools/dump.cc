// `kelda dump`: what a damaged disk still holds, as a stream that can be loaded again, and a report of what is missing.
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <optional>

#include "engine/salvage.h"
#include "runtime/machine.h"
#include "server/stored_value.h"
#include "server/text.h"
#include "tools/commands.h"
#include "tools/json.h"
#include "tools/progress.h"

namespace kelda::tools {

namespace {

// "kv.3": 3.
std::optional<unsigned> database_of(std::string_view tree) {
  if (!tree.starts_with("kv.")) return std::nullopt;
  const auto number = server::parse_integer(tree.substr(3));
  if (!number || *number < 0 || *number >= server::kDatabaseCount) return std::nullopt;
  return static_cast<unsigned>(*number);
}

bool is_expiry_index(std::string_view tree) {
  return tree.ends_with(".expiry") && database_of(tree.substr(0, tree.size() - 7)).has_value();
}

bool is_text(std::string_view bytes) {  // UTF-8, as JSON wants it
  for (std::size_t i = 0; i < bytes.size();) {
    const auto lead = static_cast<unsigned char>(bytes[i++]);
    const int more = lead < 0x80 ? 0 : lead >= 0xc2 && lead < 0xe0 ? 1 : lead >= 0xe0 && lead < 0xf0 ? 2 : lead >= 0xf0 && lead < 0xf5 ? 3 : -1;
    if (more < 0 || bytes.size() - i < static_cast<std::size_t>(more)) return false;
    const auto next = more > 0 ? static_cast<unsigned char>(bytes[i]) : 0;
    if ((lead == 0xe0 && next < 0xa0) || (lead == 0xed && next > 0x9f) || (lead == 0xf0 && next < 0x90) || (lead == 0xf4 && next > 0x8f)) return false;
    for (int k = 0; k < more; ++k) {
      if ((static_cast<unsigned char>(bytes[i++]) & 0xc0) != 0x80) return false;
    }
  }
  return true;
}

std::string hex(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    text += "0123456789abcdef"[static_cast<unsigned char>(c) >> 4];
    text += "0123456789abcdef"[c & 15];
  }
  return text;
}

// As text, or with "_hex" added to the name.
void json_bytes(JsonWriter& json, const std::string& name, std::string_view bytes) {
  is_text(bytes) ? json.field(name, bytes) : json.field(name + "_hex", hex(bytes));
}

// For people: quoted, unprintable bytes as \xNN, long ones cut.
std::string shown(std::string_view key) {
  constexpr std::size_t kMost = 60;
  std::string text = "\"";
  for (const char c : key.substr(0, kMost)) {
    if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f) text += "\\x" + hex({&c, 1});
    else text += c;
  }
  return text + (key.size() > kMost ? "\"..." : "\"");
}

// What an engine value says in Redis's terms.
struct RedisPair {
  std::string_view key;
  server::StoredValue value;
  static Result<RedisPair> decode(std::string_view key, std::string_view value) {
    RedisPair pair{server::user_key(key), {}};
    pair.value.raw = value;
    if (!pair.value.decode()) return Error(Code::kUnsupported, "its value has a format that this version does not know");
    return pair;
  }
};

class Output : public engine::SalvageSink {
 public:
  explicit Output(std::FILE* file) : file_(file) {}
  bool wants(const engine::SalvagedTree& tree, std::string&) override { return !is_expiry_index(tree.name); }

 protected:
  Result<> write(std::string_view text) {
    if (std::fwrite(text.data(), 1, text.size(), file_) == text.size()) return {};
    return Error(Code::kIo, std::string("cannot write the dump: ") + std::strerror(errno));
  }

 private:
  std::FILE* file_;
};

// Commands for `redis-cli --pipe`.
class RespOutput final : public Output {
 public:
  using Output::Output;
  bool wants(const engine::SalvagedTree& tree, std::string& reason) override {
    if (!Output::wants(tree, reason)) return false;
    if (database_of(tree.name)) return true;
    const std::string id = std::to_string(tree.id.value);
    reason = tree.named ? "holds no Redis keys: dump it with --format json"
                        : "the name of tree " + id + " is lost: give it with --name " + id + "=kv.0 if you know it, or use --format json";
    return false;
  }
  Result<> pair(const engine::SalvagedTree& tree, std::string_view key, std::string_view value, bool) override {
    const RedisPair decoded = TRY(RedisPair::decode(key, value));
    text_.clear();
    if (const unsigned db = *database_of(tree.name); db != db_) {
      begin(2), add("SELECT"), add(std::to_string(db));
      db_ = db;
    }
    const bool expires = decoded.value.expire_ms != server::kNoExpiry;
    begin(expires ? 5 : 3), add("SET"), add(decoded.key), add(decoded.value.payload());
    if (expires) add("PXAT"), add(std::to_string(decoded.value.expire_ms));
    return write(text_);
  }

 private:
  void begin(int count) { text_ += "*" + std::to_string(count) + "\r\n"; }
  void add(std::string_view word) {
    text_ += "$" + std::to_string(word.size()) + "\r\n";
    text_ += word;
    text_ += "\r\n";
  }
  std::string text_;
  unsigned db_ = 0;  // where a client is when it connects
};

// One object a line.
class JsonOutput final : public Output {
 public:
  using Output::Output;
  Result<> pair(const engine::SalvagedTree& tree, std::string_view key, std::string_view value, bool certain) override {
    JsonWriter json;
    json.begin_object();
    if (const auto db = database_of(tree.name)) {
      const RedisPair decoded = TRY(RedisPair::decode(key, value));
      json.field("db", *db);
      json_bytes(json, "key", decoded.key);
      json_bytes(json, "value", decoded.value.payload());
      if (decoded.value.expire_ms != server::kNoExpiry) json.field("expire_ms", decoded.value.expire_ms);
    } else {
      json_bytes(json, "tree", tree.name);
      json_bytes(json, "key", key);
      json_bytes(json, "value", value);
    }
    if (!certain) json.field("uncertain", true);
    json.end_object();
    return write(json.text() + "\n");
  }
};

// Reads everything and writes nothing.
class NoOutput final : public engine::SalvageSink {
 public:
  bool wants(const engine::SalvagedTree& tree, std::string&) override { return !is_expiry_index(tree.name); }
  Result<> pair(const engine::SalvagedTree&, std::string_view, std::string_view, bool) override { return {}; }
};

void report_for_people(std::FILE* to, const std::string& name, const engine::SalvageReport& r) {
  if (!r.log_damage.empty()) {
    std::fprintf(to, "%s: %s\n", name.c_str(), r.log_damage.c_str());
    std::fprintf(to, "the dump is the state just before log record %" PRIu64 "; what was committed from there on is missing\n", r.state_lsn.value);
  }
  for (const auto& tree : r.trees) {
    std::fprintf(to, "tree %s: %" PRIu64 " keys", tree.name.c_str(), tree.keys);
    if (tree.uncertain_keys > 0) std::fprintf(to, ", %" PRIu64 " of them uncertain", tree.uncertain_keys);
    if (tree.counted_keys >= 0 && static_cast<std::uint64_t>(tree.counted_keys) != tree.keys && !is_expiry_index(tree.name)) {
      std::fprintf(to, " of %" PRId64, tree.counted_keys);
    }
    std::fprintf(to, is_expiry_index(tree.name) ? " (not dumped: made again from the keys)\n" : "\n");
  }
  for (const auto& what : r.skipped) {
    std::fprintf(to, "SKIPPED %s%s", what.uncertain ? "as uncertain: " : "", what.tree.c_str());
    std::fprintf(to, ", keys from %s", what.range.from.empty() ? "the first" : shown(what.range.from).c_str());
    std::fprintf(to, " to %s", what.range.to.empty() ? "the last" : (shown(what.range.to) + " (not included)").c_str());
    std::fprintf(to, ": %s\n", what.reason.c_str());
  }
  if (r.skipped.size() < r.skipped_count) std::fprintf(to, "SKIPPED %" PRIu64 " more\n", r.skipped_count - r.skipped.size());
  std::fprintf(to, "%" PRIu64 " keys dumped, %" PRIu64 " uncertain; %" PRIu64 " pages read, %" PRIu64 " of them damaged\n", r.keys, r.uncertain_keys,
               r.pages_read, r.bad_pages);
  std::fprintf(to, "%s\n", r.complete() ? "complete" : "NOT COMPLETE");
}

void report_as_json(std::FILE* to, const std::string& name, const engine::SalvageReport& r) {
  JsonWriter json;
  json.begin_object();
  json.field("disk", name).field("complete", r.complete()).field("clean", r.was_clean).field("superblock_copies", r.superblock_copies);
  json.field("log_records", r.log_records).field("log_damage", r.log_damage);
  if (!r.log_damage.empty()) json.field("state_before_record", r.state_lsn.value);
  json.field("torn_pages_repaired", r.torn_pages_repaired).field("transactions_undone", r.transactions_undone);
  json.field("pages_read", r.pages_read).field("pages_damaged", r.bad_pages).field("pages_searched", r.pages_searched);
  json.field("keys", r.keys).field("uncertain_keys", r.uncertain_keys).field("skipped_keys", r.skipped_keys);
  json.begin_array("trees");
  for (const auto& tree : r.trees) {
    json.begin_object();
    json_bytes(json, "name", tree.name);
    json.field("id", tree.id.value).field("named", tree.named).field("keys", tree.keys).field("uncertain_keys", tree.uncertain_keys);
    if (tree.counted_keys >= 0) json.field("counted_keys", tree.counted_keys);
    json.end_object();
  }
  json.end_array();
  json.begin_array("skipped");
  for (const auto& what : r.skipped) {
    json.begin_object();
    json_bytes(json, "tree", what.tree);
    json.field("page", what.page.value).field("reason", what.reason).field("uncertain", what.uncertain);
    json_bytes(json, "from", what.range.from);
    json_bytes(json, "to", what.range.to);
    json.end_object();
  }
  json.end_array();
  json.field("skipped_count", r.skipped_count);
  json.end_object();
  std::fprintf(to, "%s\n", json.text().c_str());
}

// --name 5=kv.0
Result<std::map<std::uint64_t, std::string>> parse_names(const std::vector<std::string>& given) {
  std::map<std::uint64_t, std::string> names;
  for (const std::string& one : given) {
    const auto equals = one.find('=');
    const auto id = server::parse_integer(std::string_view(one).substr(0, equals));
    if (equals == std::string::npos || !id || *id < 0) return Error(Code::kInvalidArgument, "'" + one + "' is not ID=NAME, as in --name 2=kv.0");
    names[static_cast<std::uint64_t>(*id)] = one.substr(equals + 1);
  }
  return names;
}

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

Result<bool> run(const DumpOptions& options) {
  engine::SalvageOptions salvage;
  salvage.memory_bytes = TRY(memory_to_use(options.memory_bytes, 256_MiB));
  salvage.include_uncertain = options.uncertain;
  salvage.names = TRY(parse_names(options.names));
  auto device = TRY(blockdev::open(options.disk, {.read_only = true}));
  std::unique_ptr<std::FILE, CloseFile> opened;
  std::FILE* out = stdout;
  if (!options.out.empty()) {
    opened.reset(std::fopen(options.out.c_str(), "wxe"));
    if (opened == nullptr) return Error(Code::kInvalidArgument, options.out + ": " + std::strerror(errno) + ": name a new file with --out");
    out = opened.get();
  }
  RespOutput resp(out);
  JsonOutput json(out);
  NoOutput none;
  engine::SalvageSink& sink = options.format == "resp" ? static_cast<engine::SalvageSink&>(resp)
                              : options.format == "json" ? static_cast<engine::SalvageSink&>(json) : none;
  Result<engine::SalvageReport> report = Code::kFailed;
  {
    Progress progress("pages searched");
    report = engine::salvage_disk(std::move(device), salvage, sink, progress);
  }
  if (!report) return std::move(report).error();
  if (std::fflush(out) != 0) return Error(Code::kIo, std::string("cannot write the dump: ") + std::strerror(errno));
  if (!options.quiet) options.json ? report_as_json(stderr, options.disk, *report) : report_for_people(stderr, options.disk, *report);
  return report->complete() && report->uncertain_keys == 0;
}

}  // namespace

int dump(const DumpOptions& options) {
  Result<bool> complete = false;
  auto code = runtime::Runtime::run({.core_count = 1}, [&](runtime::Runtime&) {
    complete = run(options);
    return 0;
  });
  if (!code) complete = std::move(code).error();
  if (complete) return *complete ? 0 : kExitIncomplete;
  std::fprintf(stderr, "kelda dump: %s\n", complete.error().to_string().c_str());
  return kExitFailed;
}

}  // namespace kelda::tools
