// Stamps and verifies the header that every page carries.
#pragma once

#include "common/result.h"
#include "disk/layout.h"

namespace kelda::disk {

// Sets id and checksum. lsn and type are the owner's.
void stamp_page(PageId page, std::byte* data, std::uint64_t checksum_seed);

// True if the page is intact and at its place. Cheap to ask, no message.
bool page_verifies(PageId page, const std::byte* data, std::uint64_t checksum_seed);

// As page_verifies, with the reason: kNotFound when the page reads as all zero (never written), else kCorrupt that names
// the page and says what is wrong with it (a misdirected write, damaged content, another disk's bytes).
Result<> check_page(PageId page, const std::byte* data, std::uint64_t checksum_seed);

bool all_zero(Bytes data);

}  // namespace kelda::disk
