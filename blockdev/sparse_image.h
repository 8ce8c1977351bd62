// Bytes of a simulated disk: zero until written, memory only for what was.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "common/types.h"

namespace kelda::blockdev {

class SparseImage {
 public:
  SparseImage() = default;
  SparseImage(const SparseImage& other);
  SparseImage& operator=(const SparseImage&) = delete;

  void read(std::uint64_t at, MutableBytes out) const;
  void write(std::uint64_t at, Bytes data);
  // Reads as zero afterwards; units that are wholly inside give their memory back.
  void erase(std::uint64_t at, std::uint64_t length);

  std::uint64_t used_bytes() const { return pages_.size() * kPageBytes; }
  // How much used_bytes() would grow by writing this range.
  std::uint64_t growth_bytes(std::uint64_t at, std::uint64_t length) const;
  // Of all content: what reads as zero counts nothing, written or not.
  std::uint64_t checksum() const;

 private:
  using Page = std::array<std::byte, kPageBytes>;
  // Calls visit(page index, offset in the page, offset in the range, length) for each page of the range.
  template <class Visit>
  static void for_pages(std::uint64_t at, std::uint64_t length, Visit visit);
  std::unordered_map<std::uint64_t, std::unique_ptr<Page>> pages_;
};

}  // namespace kelda::blockdev
