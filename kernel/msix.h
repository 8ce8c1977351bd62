// MSI-X (PCI 3.0, section 6.8.2): the table of messages of one function.
#pragma once

#include <cstdint>

#include "common/result.h"
#include "kernel/interrupts.h"
#include "kernel/pci.h"

namespace kelda::kernel {

// Contract: entries start masked; set() unmasks. One driver, one CPU at a time.
class MsixTable {
 public:
  // Switches the function from wired interrupts to MSI-X. kUnsupported when it has no MSI-X.
  static Result<MsixTable> enable(const PciFunction& function);

  std::uint16_t size() const { return size_; }
  // From now on entry `index` raises `vector` on `cpu`. kBusy past the end of the table.
  Result<> set(std::uint16_t index, Vector vector, std::uint32_t cpu);

 private:
  MsixTable(volatile std::byte* entries, std::uint16_t size) : entries_(entries), size_(size) {}
  volatile std::uint32_t& word(std::uint16_t index, unsigned number) const {
    return *reinterpret_cast<volatile std::uint32_t*>(entries_ + index * 16 + number * 4);
  }
  volatile std::byte* entries_;
  std::uint16_t size_;
};

}  // namespace kelda::kernel
