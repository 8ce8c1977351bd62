#include "engine/check.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include "blockdev/overlay.h"
#include "engine/database_impl.h"

namespace kelda::engine {

namespace {

constexpr std::size_t kBatchPages = 64;

// A bit a page.
class PageSet {
 public:
  explicit PageSet(std::uint64_t page_count) : bits_((page_count + 63) / 64) {}
  bool contains(PageId page) const { return (bits_[page.value / 64] >> (page.value % 64) & 1) != 0; }
  // False if it was in already.
  bool insert(PageId page) {
    if (contains(page)) return false;
    bits_[page.value / 64] |= std::uint64_t{1} << (page.value % 64);
    return true;
  }

 private:
  std::vector<std::uint64_t> bits_;
};

struct FreeMemory {
  void operator()(std::byte* p) const { std::free(p); }
};

class Checker {
 public:
  // `store`: where pages are verified.
  Checker(DatabaseImpl& db, disk::PageStore& store, const CheckOptions& options, DiskCheck& out)
      : db_(db), store_(store), options_(options), out_(out), page_count_(out.layout.page_count), used_(page_count_), reached_(page_count_) {}

  void run(FunctionRef<void(std::uint64_t, std::uint64_t)> progress) {
    read_space_maps();
    verify_pages(progress);
    check_trees();
    compare();
  }

  void problem(std::string text) {
    ++problem_count_;
    if (problem_count_ <= options_.max_problems) out_.problems.push_back(std::move(text));
    if (problem_count_ == options_.max_problems + 1) out_.problems.push_back("more problems follow; they are not listed");
  }

 private:
  void read_space_maps() {
    for (std::uint64_t first = 0; first < page_count_; first += disk::kPagesPerSpaceMap) {
      auto map = bufferpool::SharedGuard::take(db_.pool(), PageId{first});
      if (map.failed_with(Code::kNotFound)) continue;  // nothing was ever allocated in this group
      if (!map) {
        problem("space map in page " + std::to_string(first) + ": " + map.error().to_string());
        continue;
      }
      const std::byte* bits = map->data() + disk::kSpaceMapHeaderBytes;
      const std::uint64_t pages = std::min(disk::kPagesPerSpaceMap, page_count_ - first);
      for (std::uint64_t i = 0; i < pages; ++i) {
        if ((std::to_integer<unsigned>(bits[i / 8]) >> (i % 8) & 1) != 0) use(PageId{first + i});
      }
    }
  }

  void use(PageId page) {
    used_.insert(page);
    ++out_.used_pages;
    if (page.value % disk::kPagesPerSpaceMap == 0) reached_.insert(page);
  }

  // Every page in use as it lies in the page area.
  void verify_pages(FunctionRef<void(std::uint64_t, std::uint64_t)> progress) {
    const std::unique_ptr<std::byte, FreeMemory> memory(
        static_cast<std::byte*>(std::aligned_alloc(kPageBytes, kBatchPages * kPageBytes)));
    std::vector<PageId> batch;
    const auto flush = [&] {
      std::vector<std::byte*> into;
      for (std::size_t i = 0; i < batch.size(); ++i) into.push_back(memory.get() + i * kPageBytes);
      std::vector<Result<>> status(batch.size());
      store_.read_batch(batch, into, status);
      for (std::size_t i = 0; i < batch.size(); ++i) {
        if (status[i]) {
          ++out_.verified_pages;
        } else {
          problem("page " + std::to_string(batch[i].value) + ": " + status[i].error().to_string());
        }
      }
      batch.clear();
      progress(out_.verified_pages, out_.used_pages);
    };
    for (std::uint64_t p = 0; p < page_count_; ++p) {
      if (!used_.contains(PageId{p})) continue;
      batch.push_back(PageId{p});
      if (batch.size() == kBatchPages) flush();
    }
    if (!batch.empty()) flush();
  }

  void check_trees() {
    check_tree("(catalog)", *db_.catalog().ref.load());
    const auto listed = btree::check_free_list(db_.env(), [this](PageId page) { reached_.insert(page); });
    if (!listed) problem("list of pages to free: " + listed.error().to_string());
    db_.for_each_tree([this](const std::string& name, const TreeRef& ref) { check_tree(name, ref); });
  }

  void check_tree(const std::string& name, const TreeRef& ref) {
    btree::BTree tree(db_.env(), ref.id, ref.root);
    auto report = tree.check([&](PageId page) {
      if (page.value >= page_count_) {
        problem("tree " + name + ": reaches page " + std::to_string(page.value) + ", beyond the disk");
      } else if (!reached_.insert(page)) {
        problem("tree " + name + ": reaches page " + std::to_string(page.value) + ", which is reached before");
      }
    });
    if (report) {
      out_.trees.push_back({name, report->keys, report->pages, report->leaves, report->overflow_pages, report->height});
    } else {
      problem("tree " + name + ": " + report.error().to_string());
      incomplete_ = true;
    }
  }

  void compare() {
    for (std::uint64_t p = 0; p < page_count_; ++p) {
      const PageId page{p};
      if (reached_.contains(page) && !used_.contains(page) && p % disk::kPagesPerSpaceMap != 0) {
        problem("page " + std::to_string(p) + ": in a tree, but free in the space map");
      }
      // What a damaged tree does not reach is not leaked.
      if (used_.contains(page) && !reached_.contains(page) && !incomplete_) {
        ++out_.leaked_pages;
        problem("page " + std::to_string(p) + ": in use in the space map, but no tree reaches it");
      }
    }
  }

  DatabaseImpl& db_;
  disk::PageStore& store_;
  const CheckOptions& options_;
  DiskCheck& out_;
  std::uint64_t page_count_;
  PageSet used_, reached_;
  std::size_t problem_count_ = 0;
  bool incomplete_ = false;
};

}  // namespace

Result<DiskCheck> check_disk(std::unique_ptr<blockdev::BlockDevice> device, const CheckOptions& options,
                             FunctionRef<void(std::uint64_t, std::uint64_t)> progress) {
  DiskCheck out;
  const disk::Superblock superblock = TRY(disk::Superblock::read(*device));
  out.layout = superblock.layout();
  if (superblock.valid_copies() < 2) {
    out.problems.push_back("superblock: one of its two copies does not verify; opening the disk for writing renews it");
  }
  if (auto log = wal::scan_log(*device, superblock)) {
    out.log_batches = log->batches;
    out.log_records = log->records;
    out.log_bytes = log->bytes;
  } else {
    out.problems.push_back("log: " + log.error().to_string());
  }
  DatabaseOptions db_options;
  db_options.memory_bytes = options.memory_bytes;
  OpenReport opened;
  auto overlay = std::make_unique<blockdev::OverlayDevice>(std::move(device));
  blockdev::BlockDevice& base = overlay->base();
  auto db = DatabaseImpl::open(std::move(overlay), db_options, opened, DatabaseImpl::Purpose::kInspect);
  if (!db) {
    out.problems.push_back("recovery: " + db.error().to_string());
    return out;
  }
  out.was_clean = opened.was_clean;
  out.torn_pages_repairable = opened.pages_repaired;
  out.transactions_to_undo = opened.undone_transactions;
  // Of a disk that was closed cleanly every page in use must verify where it lies. After a crash torn pages and changes
  // that are only in the log are as it should be: the pages are then verified as recovery leaves them on the overlay.
  TRY((*db)->checkpoint());
  const auto in_place = disk::make_double_write_store(base, out.layout);
  Checker(**db, out.was_clean ? *in_place : (*db)->store(), options, out).run(progress);
  return out;
}

}  // namespace kelda::engine
