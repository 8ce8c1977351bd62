// Verifies a whole disk without changing it.
//
// Contract: the device is only read; recovery, if the disk needs it, runs on a memory overlay. Finds: a damaged superblock
// copy, a log damaged before its end, a page in use whose checksum, number or place is wrong, trees out of order or out of
// step with their counts, pages in use that no tree reaches, pages that trees reach but the space maps call free.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "blockdev/blockdev.h"
#include "common/function_ref.h"
#include "common/result.h"
#include "disk/layout.h"

namespace kelda::engine {

struct TreeCheck {
  std::string name;
  std::uint64_t keys = 0, pages = 0, leaves = 0, overflow_pages = 0;
  std::uint32_t height = 0;
};

struct DiskCheck {
  std::vector<std::string> problems;  // empty: sound. Each says where and what
  disk::Layout layout;
  bool was_clean = false;
  std::uint64_t log_batches = 0, log_records = 0, log_bytes = 0;
  std::uint64_t torn_pages_repairable = 0, transactions_to_undo = 0;
  std::uint64_t used_pages = 0, verified_pages = 0, leaked_pages = 0;
  std::vector<TreeCheck> trees;

  bool sound() const { return problems.empty(); }
};

struct CheckOptions {
  std::uint64_t memory_bytes = 256ull << 20;
  std::size_t max_problems = 100;  // more are counted in the last line only
};

// An error: nothing could be said (not Kelda's, unreadable, too little memory). `progress` gets done and total pages.
Result<DiskCheck> check_disk(std::unique_ptr<blockdev::BlockDevice> device, const CheckOptions& options,
                             FunctionRef<void(std::uint64_t, std::uint64_t)> progress);

}  // namespace kelda::engine
