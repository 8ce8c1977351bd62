// Stands in for virtio_bare.cc in builds that cannot boot.
#include "blockdev/virtio_bare.h"

namespace kelda::blockdev {

Result<std::unique_ptr<BlockDevice>> open_virtio(const std::string& name, OpenOptions) {
  return Error(Code::kUnsupported, name + ": this program was built without the kernel (KELDA_BARE=OFF)");
}

}  // namespace kelda::blockdev
