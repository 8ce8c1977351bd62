// The one place where the pool's platform is chosen.
#include "bufferpool/page_map.h"

#include "runtime/platform_bare.h"

namespace kelda::bufferpool {

Result<std::unique_ptr<PageMap>> make_page_map(std::uint64_t frame_count, std::uint64_t page_count) {
  return runtime::is_bare() ? make_bare_page_map(frame_count, page_count) : make_hosted_page_map(page_count);
}

}  // namespace kelda::bufferpool
