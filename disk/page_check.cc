#include "disk/page_check.h"

#include <cstring>

#include <fmt/format.h>

#include "common/checksum.h"
#include "common/planted_bug.h"

namespace kelda::disk {
namespace {

std::uint64_t content_checksum(PageId page, const std::byte* data, std::uint64_t checksum_seed) {
  constexpr std::size_t kFrom = offsetof(PageHeader, page_id);
  return checksum64({data + kFrom, kPageBytes - kFrom}, checksum_seed ^ page.value);
}

}  // namespace

bool all_zero(Bytes data) {
  return data.empty() || (data[0] == std::byte{0} && std::memcmp(data.data(), data.data() + 1, data.size() - 1) == 0);
}

void stamp_page(PageId page, std::byte* data, std::uint64_t checksum_seed) {
  PageHeader& header = header_of(data);
  header.page_id = page.value;
  header.checksum = content_checksum(page, data, checksum_seed);
}

bool page_verifies(PageId page, const std::byte* data, std::uint64_t checksum_seed) {
  const PageHeader& header = header_of(data);
  if (planted(Bug::kChecksumWithoutPageId)) page = PageId(header.page_id);
  return header.page_id == page.value && header.checksum == content_checksum(page, data, checksum_seed);
}

Result<> check_page(PageId page, const std::byte* data, std::uint64_t checksum_seed) {
  if (page_verifies(page, data, checksum_seed)) return {};
  if (all_zero({data, kPageBytes})) return Error(Code::kNotFound, fmt::format("page {} was never written", page.value));
  const PageHeader& header = header_of(data);
  if (header.page_id == page.value) {
    return Error(Code::kCorrupt, fmt::format("page {}: its content does not match its checksum (damaged on the device)",
                                             page.value));
  }
  const PageId other(header.page_id);
  if (page_verifies(other, data, checksum_seed)) {
    return Error(Code::kCorrupt,
                 fmt::format("page {}: holds an intact page {} (a write went to the wrong place)", page.value, other.value));
  }
  return Error(Code::kCorrupt, fmt::format("page {}: holds neither this page nor another page of this disk", page.value));
}

}  // namespace kelda::disk
