// Stands in for page_map_bare.cc in builds that cannot boot.
#include "bufferpool/page_map.h"

namespace kelda::bufferpool {

Result<std::unique_ptr<PageMap>> make_bare_page_map(std::uint64_t, std::uint64_t) {
  return Error(Code::kUnsupported, "this program was built without the kernel");
}

}  // namespace kelda::bufferpool
