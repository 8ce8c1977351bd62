// One target under libFuzzer; CMake says which (KELDA_FUZZ_TARGET).
#include "fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const kelda::fuzz::FuzzTarget& target = kelda::fuzz::KELDA_FUZZ_TARGET;
  if (size > target.max_bytes) return -1;
  target.run({reinterpret_cast<const std::byte*>(data), size});
  return 0;
}
