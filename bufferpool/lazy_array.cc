#include "bufferpool/lazy_array.h"

#include <sys/mman.h>

#include <fmt/format.h>

namespace kelda::bufferpool {

Result<std::byte*> map_lazily(std::uint64_t size_bytes) {
  void* memory = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return Error(Code::kOutOfMemory,
                 fmt::format("{} bytes of address space were refused (vm.overcommit_memory=2, or a ulimit -v?)", size_bytes));
  }
  return static_cast<std::byte*>(memory);
}

void unmap_lazily(std::byte* memory, std::uint64_t size_bytes) { munmap(memory, size_bytes); }

}  // namespace kelda::bufferpool
