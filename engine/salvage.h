// Reads a damaged disk as far as truth goes, and says what it leaves out.
//
// Contract
//  - The device is only read; torn pages are repaired and the log is applied on a memory overlay.
//  - What is passed on as certain is what the database held: in its last durable state or, when the log is damaged, in its
//    state just before the first log record that cannot be read. Nothing is guessed from bytes that do not verify.
//  - What may be out of date is uncertain, and is passed on only when asked for: pages newer than the readable log, and
//    leaves found by a search whose being in use cannot be told.
//  - Everything else is named: which page, why, and between which keys something is missing.
//
// Where inner nodes or the catalog are lost, all pages are searched for leaves: a leaf carries the id of its tree and both
// fences, so it says itself between which keys it is complete.
//
// Not seen, as nothing on the disk tells: a write that the device acknowledged and never made; damage to the log's very
// last batch, if no page is newer (docs/format-wal.md).
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "blockdev/blockdev.h"
#include "common/function_ref.h"
#include "common/result.h"
#include "disk/layout.h"

namespace kelda::engine {

// Keys from <= key < to; empty: unbounded.
struct KeyRange {
  std::string from, to;
};

// Something that is not passed on.
struct Skipped {
  std::string tree;   // name; empty: concerns the disk as a whole
  PageId page;        // kNoPage: none in particular
  std::string reason;
  KeyRange range;
  bool uncertain = false;  // it is there, but may be out of date: see SalvageOptions
};

struct SalvagedTree {
  std::string name;   // "(tree 17)" when the catalog's entry is lost
  TreeId id;
  bool named = true;
  std::uint64_t keys = 0, uncertain_keys = 0;  // passed on; of these, the uncertain ones
  std::int64_t counted_keys = -1;  // by the log; -1: not known
};

struct SalvageReport {
  disk::Layout layout;
  bool was_clean = false;
  unsigned superblock_copies = 0;
  std::string log_damage;           // empty: the log was read to its end
  Lsn state_lsn;                    // the state passed on is that before this log record
  bool losers_unknown = false;      // changes of transactions that never committed may be among what is passed on
  std::uint64_t log_records = 0, torn_pages_repaired = 0, transactions_undone = 0;
  std::uint64_t pages_read = 0, pages_searched = 0, bad_pages = 0;
  std::uint64_t keys = 0, uncertain_keys = 0, skipped_keys = 0;  // skipped: single keys and uncertain ones, not ranges
  std::vector<SalvagedTree> trees;
  std::vector<Skipped> skipped;
  std::uint64_t skipped_count = 0;  // more than are listed, if there are very many

  bool complete() const { return skipped_count == 0 && log_damage.empty(); }
};

struct SalvageOptions {
  std::uint64_t memory_bytes = 256ull << 20;
  bool include_uncertain = false;
  std::map<std::uint64_t, std::string> names = {};  // of trees by id, for those whose catalog entry is lost
  std::size_t max_listed = 1000;
};

// What is done with the pairs. Within a tree in the order of keys, except for what a search found.
class SalvageSink {
 public:
  virtual ~SalvageSink() = default;
  // Shall the tree be read? A reason, if not reading it means that something is missing.
  virtual bool wants(const SalvagedTree& tree, std::string& reason) = 0;
  // kUnsupported: the pair is not understood; it is counted as skipped, with the message. Other errors end the salvage.
  virtual Result<> pair(const SalvagedTree& tree, std::string_view key, std::string_view value, bool certain) = 0;
};

// An error: nothing can be said (no superblock copy verifies, not Kelda's, the sink failed). `progress` gets pages done
// and to do.
Result<SalvageReport> salvage_disk(std::unique_ptr<blockdev::BlockDevice> device, const SalvageOptions& options,
                                   SalvageSink& sink, FunctionRef<void(std::uint64_t, std::uint64_t)> progress);

}  // namespace kelda::engine
