// Private to kernel/; the text itself is command_line() in kernel.h.
#pragma once

#include <cstddef>

namespace kelda::kernel {

// Writes the words of the command line, each ended by a zero, to `out`, and returns their number. Quotes ("...", '...')
// hold words together and are dropped; words that describe virtio-mmio devices are left out.
std::size_t split_command_line(char* out, std::size_t capacity, std::size_t& size_bytes);

}  // namespace kelda::kernel
