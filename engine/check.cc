#include "engine/check.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "blockdev/overlay.h"
#include "disk/aligned_buffer.h"
#include "engine/database_impl.h"

namespace kelda::engine {

namespace {

constexpr std::size_t kBatchPages = 64;
constexpr std::uint64_t kTablesShare = 4;  // a quarter of the memory is for the tables of pages

// A bit a page, with memory only for space-map groups that have one set: most of a large disk was never used.
class PageSet {
 public:
  using Group = std::array<std::uint64_t, disk::kPagesPerSpaceMap / 64>;
  static_assert(disk::kPagesPerSpaceMap % 64 == 0);

  bool contains(PageId page) const {
    const Group* group = find(page.value / disk::kPagesPerSpaceMap);
    return group != nullptr && ((*group)[word_of(page)] >> (page.value % 64) & 1) != 0;
  }
  // False if it was in already.
  bool insert(PageId page) {
    const std::uint64_t number = page.value / disk::kPagesPerSpaceMap;
    if (last_ == nullptr || last_number_ != number) {
      auto& group = groups_[number];
      if (group == nullptr) group = std::make_unique<Group>();
      last_ = group.get();
      last_number_ = number;
    }
    std::uint64_t& word = (*last_)[word_of(page)];
    const std::uint64_t bit = std::uint64_t{1} << (page.value % 64);
    if ((word & bit) != 0) return false;
    word |= bit;
    return true;
  }
  std::size_t group_count() const { return groups_.size(); }
  // Numbers of the groups that have a page in, ascending.
  void add_groups_to(std::set<std::uint64_t>& numbers) const {
    for (const auto& [number, group] : groups_) numbers.insert(number);
  }

 private:
  static std::size_t word_of(PageId page) { return page.value % disk::kPagesPerSpaceMap / 64; }
  const Group* find(std::uint64_t number) const {
    if (last_ != nullptr && last_number_ == number) return last_;
    const auto found = groups_.find(number);
    return found == groups_.end() ? nullptr : found->second.get();
  }

  std::map<std::uint64_t, std::unique_ptr<Group>> groups_;
  Group* last_ = nullptr;  // the group of the last insert(): runs are the rule
  std::uint64_t last_number_ = 0;
};

// What one group with pages in use takes: two sets.
constexpr std::uint64_t kGroupBytes = 2 * (sizeof(PageSet::Group) + 128);

class Checker {
 public:
  // `store`: where pages are verified.
  Checker(DatabaseImpl& db, disk::PageStore& store, const CheckOptions& options, DiskCheck& out)
      : db_(db), store_(store), options_(options), out_(out), page_count_(out.layout.page_count) {}

  Result<> run(FunctionRef<void(std::uint64_t, std::uint64_t)> progress) {
    TRY(read_space_maps());
    verify_pages(progress);
    check_trees();
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
    const std::uint64_t needed = used_.group_count() * kGroupBytes;
    if (needed <= options_.memory_bytes / kTablesShare) return {};
    // By the disk's size: how much of it is in use is not known yet.
    const std::uint64_t groups = page_count_ / disk::kPagesPerSpaceMap + 1;
    return Error(Code::kOutOfMemory, "so much of this disk is in use that the check needs more memory: --memory " +
                                         std::to_string((groups * kGroupBytes * kTablesShare >> 20) + 1) + "M is enough");
  }

  void use(PageId page) {
    used_.insert(page);
    ++out_.used_pages;
    if (page.value % disk::kPagesPerSpaceMap == 0) reached_.insert(page);
  }

  // Every page in use as it lies in the page area.
  void verify_pages(FunctionRef<void(std::uint64_t, std::uint64_t)> progress) {
    disk::AlignedBuffer memory(kBatchPages * kPageBytes);
    std::vector<PageId> batch;
    const auto flush = [&] {
      std::vector<std::byte*> into;
      for (std::size_t i = 0; i < batch.size(); ++i) into.push_back(memory.data() + i * kPageBytes);
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
    for_each_page([&](PageId page) {
      if (!used_.contains(page)) return;
      batch.push_back(page);
      if (batch.size() == kBatchPages) flush();
    });
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
  const CheckOptions& options_;
  DiskCheck& out_;
  std::uint64_t page_count_;
  PageSet used_, reached_;
  std::size_t problem_count_ = 0;
  bool incomplete_ = false;
};

// The rest, unless that is less than the engine can work with: then the disk is small, and so are the tables.
std::uint64_t memory_of_engine(std::uint64_t memory_bytes) {
  const std::uint64_t rest = memory_bytes - memory_bytes / kTablesShare;
  return plan_memory(rest) ? rest : memory_bytes;
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
  TRY(Checker(**db, out.was_clean ? *in_place : (*db)->store(), options, out).run(progress));
  return out;
}

}  // namespace kelda::engine
