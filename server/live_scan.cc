#include "server/live_scan.h"

namespace kelda::server {

Result<LiveScan> LiveScan::open(Call& call) {
  auto scan = TRY(call.keys.scan(call.db()));
  return LiveScan(call, std::move(scan), call.keys.keyspace().expiry_count(call.db()) > 0);
}

Result<std::string_view> LiveScan::value() {
  value_.raw.assign(TRY(scan_->value()));
  if (!value_.decode()) return Error(Code::kCorrupt, "a stored value has a format that this version does not know");
  return value_.payload();
}

Result<bool> LiveScan::live() {
  if (!may_expire_) return true;
  TRY(value());
  return !value_.expired(call_->keys.expiry_now_ms());
}

Result<bool> LiveScan::settle(bool found, bool forward) {
  while (found) {
    ++visited_;
    if (TRY(live())) return true;
    TRY(call_->give_way());
    found = TRY(forward ? scan_->next() : scan_->prev());
  }
  return false;
}

Result<bool> LiveScan::seek(std::string_view key, bool after) {
  if (scan_ == nullptr) return false;
  const std::string_view stored = key.empty() && !after ? key : stored_key(key, key_scratch_);
  bool found = TRY(scan_->seek(stored));
  if (found && after && scan_->key() == stored) found = TRY(scan_->next());
  return settle(found, true);
}

Result<bool> LiveScan::seek_back(std::optional<std::string_view> key, bool before) {
  if (scan_ == nullptr) return false;
  const std::string_view stored = key ? stored_key(*key, key_scratch_) : std::string_view();
  bool found = TRY(scan_->seek_back(stored));
  if (found && before && key && scan_->key() == stored) found = TRY(scan_->prev());
  return settle(found, false);
}

Result<bool> LiveScan::next() {
  const bool found = TRY(scan_->next());
  return settle(found, true);
}

Result<bool> LiveScan::prev() {
  const bool found = TRY(scan_->prev());
  return settle(found, false);
}

}  // namespace kelda::server
