// Where the firmware's tables lie: through the identity map, else mapped for the purpose.
#include "kernel/internal.h"
#include "kernel/machine_info.h"
#include "kernel/tables.h"

namespace kelda::kernel {

const std::uint8_t* firmware_view(std::uint64_t address, std::size_t size_bytes) {
  if (size_bytes == 0 || address == 0) return nullptr;
  if (find_mapping(address).entry && find_mapping(address + size_bytes - 1).entry) {
    return reinterpret_cast<const std::uint8_t*>(address);
  }
  auto view = map_mmio(PhysAddr(address), size_bytes);
  return view ? const_cast<const std::uint8_t*>(static_cast<volatile std::uint8_t*>(*view)) : nullptr;
}

}  // namespace kelda::kernel
