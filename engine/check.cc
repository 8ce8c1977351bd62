#include "engine/check.h"

#include <algorithm>
#include <set>

#include "blockdev/overlay.h"
#include "disk/aligned_buffer.h"
#include "engine/database_impl.h"
#include "engine/page_set.h"
#include "engine/read_ahead.h"

namespace kelda::engine {

namespace {

constexpr std::size_t kBatchPages = 256;
// Of the memory: half for the engine that opens the disk, three eighths for tables of pages, an eighth to read ahead.
constexpr std::uint64_t engine_share(std::uint64_t memory_bytes) { return memory_bytes / 2; }
constexpr std::uint64_t tables_share(std::uint64_t memory_bytes) { return memory_bytes / 8 * 3; }
constexpr std::uint64_t read_ahead_share(std::uint64_t memory_bytes) { return memory_bytes / 8; }

// What one group with pages in use takes: three sets.
constexpr std::uint64_t kGroupBytes = 3 * (sizeof(PageSet::Group) + 128);

class Checker {
 public:
  // `store`: where pages are verified. `overlay`: what the trees are read from may lie there and not on the disk itself.
  Checker(DatabaseImpl& db, disk::PageStore& store, blockdev::OverlayDevice& overlay, const CheckOptions& options, DiskCheck& out)
      : db_(db), store_(store), overlay_(overlay), options_(options), out_(out), page_count_(out.layout.page_count) {}

  Result<> run(FunctionRef<void(std::uint64_t, std::uint64_t)> progress) {
    TRY(read_space_maps());
    // Trees first: most pages are then read and verified once. What is wrong with single pages is listed before.
    check_trees(progress);
    verify_pages(progress);
    for (std::string& text : tree_problems_) problem(std::move(text));
    compare();
    return {};
  }

  void problem(std::string text) {
    ++problem_count_;
    if (problem_count_ <= options_.max_problems) out_.problems.push_back(std::move(text));
    if (problem_count_ == options_.max_problems + 1) out_.problems.push_back("more problems follow; they are not listed");
  }

 private:
  // Past the pool: a large disk has many maps, nearly all of them never written, and the pool would remember each.
  Result<> read_space_maps() {
    disk::AlignedBuffer buffer(kBatchPages * kPageBytes);
    for (std::uint64_t first = 0; first < page_count_;) {
      std::vector<PageId> maps;
      std::vector<std::byte*> into;
      for (; maps.size() < kBatchPages && first < page_count_; first += disk::kPagesPerSpaceMap) {
        into.push_back(buffer.data() + maps.size() * kPageBytes);
        maps.push_back(PageId{first});
      }
      std::vector<Result<>> status(maps.size());
      db_.store().read_batch(maps, into, status);
      for (std::size_t i = 0; i < maps.size(); ++i) {
        if (status[i].failed_with(Code::kNotFound)) continue;  // nothing was ever allocated in this group
        if (status[i]) {
          take_space_map(maps[i], into[i]);
        } else {
          problem("space map in page " + std::to_string(maps[i].value) + ": " + status[i].error().to_string());
        }
      }
      TRY(check_memory());
    }
    return {};
  }

  void take_space_map(PageId map, const std::byte* data) {
    const std::byte* bits = data + disk::kSpaceMapHeaderBytes;
    const std::uint64_t pages = std::min(disk::kPagesPerSpaceMap, page_count_ - map.value);
    for (std::uint64_t i = 0; i < pages; ++i) {
      if ((std::to_integer<unsigned>(bits[i / 8]) >> (i % 8) & 1) != 0) use(PageId{map.value + i});
    }
  }

  Result<> check_memory() const {
    if (used_.group_count() * kGroupBytes <= tables_share(options_.memory_bytes)) return {};
    // By the disk's size: how much of it is in use is not known yet.
    const std::uint64_t most_bytes = (page_count_ / disk::kPagesPerSpaceMap + 1) * kGroupBytes / 3 * 8;
    return Error(Code::kOutOfMemory, "so much of this disk is in use that the check needs more memory: --memory " +
                                         std::to_string((most_bytes >> 20) + 1) + "M is enough");
  }

  void use(PageId page) {
    used_.insert(page);
    ++out_.used_pages;
    if (page.value % disk::kPagesPerSpaceMap == 0) reached_.insert(page);
  }

  // Every page in use as it lies in the page area, unless it was read from there for a tree.
  void verify_pages(FunctionRef<void(std::uint64_t, std::uint64_t)> progress) {
    const auto ignore = [](PageId) {};
    ReadAhead ahead(store_, read_ahead_share(options_.memory_bytes), ignore);
    std::vector<PageId> coming, now;
    const auto next_batch = [&] {
      ahead.expect(coming);
      for (const PageId page : now) verify(ahead, page);
      now.swap(coming);
      coming.clear();
      progress(out_.verified_pages, out_.used_pages);
    };
    for_each_page([&](PageId page) {
      if (!used_.contains(page)) return;
      if (verified_.contains(page)) {
        ++out_.verified_pages;
        return;
      }
      coming.push_back(page);
      if (coming.size() == kBatchPages) next_batch();
    });
    next_batch();
    next_batch();
  }

  void verify(ReadAhead& ahead, PageId page) {
    alignas(8) std::byte bytes[kPageBytes];
    if (const auto read = ahead.read(page, bytes)) {
      ++out_.verified_pages;
    } else {
      problem("page " + std::to_string(page.value) + ": " + read.error().to_string());
    }
  }

  void check_trees(FunctionRef<void(std::uint64_t, std::uint64_t)> progress) {
    std::uint64_t read_pages = 0;
    const auto on_read = [&](PageId page) {
      if (page.value >= page_count_) return;
      if (!out_.was_clean || !overlay_.written(out_.layout.offset_of(page))) verified_.insert(page);
      if (++read_pages % kBatchPages == 0) progress(std::min(read_pages, out_.used_pages), out_.used_pages);
    };
    ReadAhead ahead(db_.store(), read_ahead_share(options_.memory_bytes), on_read);
    check_tree("(catalog)", *db_.catalog().ref.load(), ahead);
    const auto listed = btree::check_free_list(db_.env(), [this](PageId page) { reached_.insert(page); });
    if (!listed) tree_problem("list of pages to free: " + listed.error().to_string());
    db_.for_each_tree([&](const std::string& name, const TreeRef& ref) { check_tree(name, ref, ahead); });
  }

  void check_tree(const std::string& name, const TreeRef& ref, ReadAhead& ahead) {
    btree::BTree tree(db_.env(), ref.id, ref.root);
    auto report = tree.check(
        [&](PageId page) {
          if (page.value >= page_count_) {
            tree_problem("tree " + name + ": reaches page " + std::to_string(page.value) + ", beyond the disk");
          } else if (!reached_.insert(page)) {
            tree_problem("tree " + name + ": reaches page " + std::to_string(page.value) + ", which is reached before");
          }
        },
        &ahead);
    if (report) {
      out_.trees.push_back({name, report->keys, report->pages, report->leaves, report->overflow_pages, report->height});
    } else {
      tree_problem("tree " + name + ": " + report.error().to_string());
      incomplete_ = true;
    }
  }

  // Kept until those of single pages are listed; one more than are listed, so that it is seen that there are more.
  void tree_problem(std::string text) {
    if (tree_problems_.size() <= options_.max_problems) tree_problems_.push_back(std::move(text));
  }

  void compare() {
    for_each_page([this](PageId page) {
      if (reached_.contains(page) && !used_.contains(page) && page.value % disk::kPagesPerSpaceMap != 0) {
        problem("page " + std::to_string(page.value) + ": in a tree, but free in the space map");
      }
      // What a damaged tree does not reach is not leaked.
      if (used_.contains(page) && !reached_.contains(page) && !incomplete_) {
        ++out_.leaked_pages;
        problem("page " + std::to_string(page.value) + ": in use in the space map, but no tree reaches it");
      }
    });
  }

  // Ascending; all pages of groups in which one is in use or reached.
  void for_each_page(FunctionRef<void(PageId)> visit) const {
    std::set<std::uint64_t> groups;
    used_.add_groups_to(groups);
    reached_.add_groups_to(groups);
    for (const std::uint64_t group : groups) {
      const std::uint64_t first = group * disk::kPagesPerSpaceMap;
      const std::uint64_t end = std::min(page_count_, first + disk::kPagesPerSpaceMap);
      for (std::uint64_t p = first; p < end; ++p) visit(PageId{p});
    }
  }

  DatabaseImpl& db_;
  disk::PageStore& store_;
  blockdev::OverlayDevice& overlay_;
  const CheckOptions& options_;
  DiskCheck& out_;
  std::uint64_t page_count_;
  PageSet used_, reached_, verified_;
  std::vector<std::string> tree_problems_;
  std::size_t problem_count_ = 0;
  bool incomplete_ = false;
};

// Its share, unless that is less than the engine can work with: then the disk is small, and so are the tables.
std::uint64_t memory_of_engine(std::uint64_t memory_bytes) {
  const std::uint64_t share = engine_share(memory_bytes);
  return plan_memory(share) ? share : memory_bytes;
}

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
  db_options.memory_bytes = memory_of_engine(options.memory_bytes);
  OpenReport opened;
  auto overlay = std::make_unique<blockdev::OverlayDevice>(std::move(device));
  blockdev::OverlayDevice& written = *overlay;
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
  const auto in_place = disk::make_double_write_store(written.base(), out.layout);
  TRY(Checker(**db, out.was_clean ? *in_place : (*db)->store(), written, options, out).run(progress));
  return out;
}

}  // namespace kelda::engine
