#include "blockdev/sparse_image.h"

#include <algorithm>
#include <cstring>

#include "common/checksum.h"

namespace kelda::blockdev {

template <class Visit>
void SparseImage::for_pages(std::uint64_t at, std::uint64_t length, Visit visit) {
  for (std::uint64_t done = 0; done < length;) {
    const std::uint64_t inside = (at + done) % kPageBytes;
    const std::uint64_t part = std::min(kPageBytes - inside, length - done);
    visit((at + done) / kPageBytes, inside, done, part);
    done += part;
  }
}

SparseImage::SparseImage(const SparseImage& other) {
  for (const auto& [index, page] : other.pages_) pages_.emplace(index, std::make_unique<Page>(*page));
}

void SparseImage::read(std::uint64_t at, MutableBytes out) const {
  for_pages(at, out.size(), [&](auto index, auto inside, auto done, auto part) {
    const auto found = pages_.find(index);
    if (found == pages_.end()) {
      std::memset(out.data() + done, 0, part);
    } else {
      std::memcpy(out.data() + done, found->second->data() + inside, part);
    }
  });
}

void SparseImage::write(std::uint64_t at, Bytes data) {
  for_pages(at, data.size(), [&](auto index, auto inside, auto done, auto part) {
    std::unique_ptr<Page>& page = pages_[index];
    if (page == nullptr) page = std::make_unique<Page>();
    std::memcpy(page->data() + inside, data.data() + done, part);
  });
}

void SparseImage::erase(std::uint64_t at, std::uint64_t length) {
  for_pages(at, length, [&](auto index, auto inside, auto, auto part) {
    const auto found = pages_.find(index);
    if (found == pages_.end()) return;
    if (part == kPageBytes) {
      pages_.erase(found);
    } else {
      std::memset(found->second->data() + inside, 0, part);
    }
  });
}

std::uint64_t SparseImage::growth_bytes(std::uint64_t at, std::uint64_t length) const {
  std::uint64_t growth = 0;
  for_pages(at, length, [&](auto index, auto, auto, auto) { growth += pages_.contains(index) ? 0 : kPageBytes; });
  return growth;
}

std::uint64_t SparseImage::checksum() const {
  static constexpr Page kZeroes{};
  std::uint64_t sum = 0;
  for (const auto& [index, page] : pages_) {
    if (*page != kZeroes) sum += checksum64(*page, index);
  }
  return sum;
}

}  // namespace kelda::blockdev
