// virtio over PCI, modern layout only (virtio 1.2, section 4.1).
#pragma once

#include "kernel/msix.h"
#include "kernel/pci.h"
#include "kernel/virtio_device.h"

namespace kelda::kernel {

bool is_virtio(const PciFunction& function);
// Maps the function's structures and switches it to MSI-X. kUnsupported for a legacy-only device.
Result<std::unique_ptr<VirtioTransport>> open_virtio_pci(const PciFunction& function);

}  // namespace kelda::kernel
