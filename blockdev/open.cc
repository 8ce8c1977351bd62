// The one place where the kind of device is chosen.
#include "blockdev/blockdev.h"
#include "blockdev/file_hosted.h"
#include "blockdev/virtio_bare.h"
#include "runtime/platform_bare.h"

namespace kelda::blockdev {

Result<std::unique_ptr<BlockDevice>> open(const std::string& name, OpenOptions options) {
  return runtime::is_bare() ? open_virtio(name, options) : open_file(name, options);
}

}  // namespace kelda::blockdev
