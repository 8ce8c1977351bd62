#include "kernel/virtio_rng.h"

#include <algorithm>
#include <cstring>

#include "common/assert.h"

namespace kelda::kernel {
namespace {
constexpr std::size_t kBufferBytes = 256;
}

Result<std::unique_ptr<VirtioRng>> VirtioRng::create(std::unique_ptr<VirtioTransport> transport, DmaMemory& memory) {
  DmaMemory::Block buffer = TRY(memory.allocate(kBufferBytes));
  std::unique_ptr<VirtioRng> rng(new VirtioRng(std::move(transport), buffer));
  std::uint64_t features = TRY(virtio_start(*rng->transport_, 0));
  rng->queue_ = TRY(virtio_make_queue(*rng->transport_, memory, 0, 8, features, {}));
  virtio_ready(*rng->transport_);
  return rng;
}

Result<> VirtioRng::fill(MutableBytes out, std::uint64_t timeout_us, std::uint64_t (*now_ns)()) {
  std::uint64_t deadline_ns = now_ns() + timeout_us * 1000;
  while (!out.empty()) {
    // A request that timed out earlier is still the device's: its answer is as random as any.
    if (queue_->in_flight() == 0) {
      DmaSegment segment{buffer_.address, static_cast<std::uint32_t>(std::min(out.size(), kBufferBytes))};
      KELDA_ASSERT(queue_->submit({}, {&segment, 1}, this));
      if (queue_->kick()) transport_->notify(0);
    }
    std::optional<VirtQueue::Completion> completion;
    while (!(completion = queue_->poll())) {
      if (queue_->broken()) return Error(Code::kIo, transport_->where() + ": the entropy device broke the protocol");
      if (now_ns() > deadline_ns) return Error(Code::kTimeout, transport_->where() + ": the host delivers no entropy");
      __builtin_ia32_pause();
    }
    std::size_t got = std::min<std::size_t>({completion->written_bytes, out.size(), kBufferBytes});
    if (got == 0) return Error(Code::kIo, transport_->where() + ": the host answered without entropy");
    std::memcpy(out.data(), buffer_.data, got);
    std::memset(buffer_.data, 0, kBufferBytes);  // what was handed out is not kept
    out = out.subspan(got);
  }
  return {};
}

}  // namespace kelda::kernel
