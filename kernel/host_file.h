// Small files that the host hands to the machine: QEMU's firmware configuration device
// (`-fw_cfg name=opt/NAME,file=F`; QEMU's docs/specs/fw_cfg.rst), at ports 0x510 and 0x511 of q35, pc and microvm.
//
// Contract: bare only. One caller at a time: the device has one selector. Reads by port, a byte each: for small files.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "common/types.h"

namespace kelda::kernel {

// The size in bytes of the file of this name, of which `out` now has the beginning, as much as fits. Nothing: the host
// handed over no such file, or has no such device.
std::optional<std::size_t> read_host_file(std::string_view name, MutableBytes out);

}  // namespace kelda::kernel
