// Walks the live keys of one database in order, within the current transaction of a KeyAccess.
//
// Contract: positions are user keys; expired ones are passed over. key() and value() are valid until the next move. A
// move may have many expired keys to pass, so it gives way to others, and ends with kAborted when nobody wants the rest.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/client.h"

namespace kelda::server {

class LiveScan {
 public:
  // Of the call's database, in its transaction. The call outlives the scan.
  static Result<LiveScan> open(Call& call);

  // The first live key at or after `key`, strictly after it if `after`. False: there is none.
  Result<bool> seek(std::string_view key, bool after = false);
  // The last live key at or before `key`, strictly before it if `before`; without a key, the last of all.
  Result<bool> seek_back(std::optional<std::string_view> key, bool before = false);
  Result<bool> next();
  Result<bool> prev();

  std::string_view key() const { return user_key(scan_->key()); }
  Result<std::string_view> value();

  // Stored keys that were looked at, live or not.
  std::uint64_t visited() const { return visited_; }

 private:
  LiveScan(Call& call, std::unique_ptr<Scan> scan, bool may_expire)
      : call_(&call), scan_(std::move(scan)), may_expire_(may_expire) {}
  // From a position (or none, if not `found`) on to the first live key.
  Result<bool> settle(bool found, bool forward);
  Result<bool> live();

  Call* call_;
  std::unique_ptr<Scan> scan_;  // null: nothing was ever stored
  bool may_expire_;  // else no value needs to be looked at
  std::uint64_t visited_ = 0;
  std::string key_scratch_;
  StoredValue value_;
};

}  // namespace kelda::server
