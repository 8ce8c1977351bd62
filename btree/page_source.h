// Where a check of a tree reads pages: from the pool, or from a device with many reads in flight.
#pragma once

#include <span>

#include "common/result.h"
#include "common/types.h"

namespace kelda::btree {

class PageSource {
 public:
  virtual ~PageSource() = default;
  // As disk::PageStore::read, but `into` needs no alignment.
  virtual Result<> read(PageId page, std::byte* into) = 0;
  // A hint: these will be read soon, in about this order.
  virtual void expect(std::span<const PageId> pages) = 0;
};

}  // namespace kelda::btree
