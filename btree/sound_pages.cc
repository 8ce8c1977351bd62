#include "btree/sound_pages.h"

#include "btree/ops.h"

namespace kelda::btree {

namespace {

Result<> judge(PageId page, const std::byte* data) {
  const NodeView node(data);
  if (!node.is_node()) return {};
  if (auto sound = check_node(node); !sound) {
    return Error(Code::kCorrupt, "page " + std::to_string(page.value) + ": " + sound.error().message());
  }
  return {};
}

class SoundPages final : public disk::PageStore {
 public:
  explicit SoundPages(std::unique_ptr<disk::PageStore> store) : store_(std::move(store)) {}

  Result<> read(PageId page, std::byte* into) override {
    TRY(store_->read(page, into));
    return judge(page, into);
  }
  void read_batch(std::span<const PageId> pages, std::span<std::byte* const> into, std::span<Result<>> status) override {
    store_->read_batch(pages, into, status);
    for (std::size_t i = 0; i < pages.size(); ++i) {
      if (status[i]) status[i] = judge(pages[i], into[i]);
    }
  }
  void read_runs(std::span<const PageId> pages, std::byte* into, std::span<Result<>> status) override {
    store_->read_runs(pages, into, status);
    for (std::size_t i = 0; i < pages.size(); ++i) {
      if (status[i]) status[i] = judge(pages[i], into + i * kPageBytes);
    }
  }
  Result<> write(std::span<const disk::PageWrite> batch) override { return store_->write(batch); }
  Result<> sync() override { return store_->sync(); }
  void forget(std::span<const PageId> pages) override { store_->forget(pages); }
  bool can_forget() const override { return store_->can_forget(); }
  const disk::Layout& layout() const override { return store_->layout(); }
  std::uint64_t copy_areas() const override { return store_->copy_areas(); }
  std::uint64_t copy_area_bytes() const override { return store_->copy_area_bytes(); }
  Result<> check_copy_area(std::uint64_t area) override { return store_->check_copy_area(area); }
  Result<RepairReport> repair() override { return store_->repair(); }

 private:
  const std::unique_ptr<disk::PageStore> store_;
};

}  // namespace

std::unique_ptr<disk::PageStore> only_sound_pages(std::unique_ptr<disk::PageStore> store) {
  return std::make_unique<SoundPages>(std::move(store));
}

}  // namespace kelda::btree
