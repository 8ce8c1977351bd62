#include "blockdev/overlay.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

namespace kelda::blockdev {

OverlayDevice::OverlayDevice(std::unique_ptr<BlockDevice> base) : base_(std::move(base)), info_(base_->info()) {
  info_.driver += " under a memory overlay";
  info_.read_only = false;
  info_.has_flush = true;
  info_.has_fua = false;
  info_.has_discard = false;
  info_.has_write_zeroes = true;
}

// Reads of what was never written here go to the base as they are, many at once. Any other request may need the base,
// which parks, and more: each of them runs in a fiber of its own.
void OverlayDevice::submit(std::span<Request* const> requests) {
  std::vector<Request*> untouched;
  for (Request* request : requests) {
    check_request(*request, info_);
    if (request->op == Op::kRead && !any_written(request->offset_bytes, transfer_bytes(*request))) {
      counters_.count(*request, transfer_bytes(*request));
      untouched.push_back(request);
      continue;
    }
    auto spawned = runtime::Core::current().spawn([this, request] { run(*request); }, {.name = "overlay"});
    if (spawned) continue;
    request->status = std::move(spawned).error();
    request->completion->done();
  }
  if (!untouched.empty()) base_->submit(untouched);
}

bool OverlayDevice::any_written(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  std::scoped_lock guard(latch_);
  if (blocks_.empty()) return false;
  for (std::uint64_t block = offset_bytes / kBlockBytes; block * kBlockBytes < offset_bytes + length_bytes; ++block) {
    if (blocks_.contains(block)) return true;
  }
  return false;
}

void OverlayDevice::run(Request& request) {
  Result<> status;
  std::uint64_t offset_bytes = request.offset_bytes;
  switch (request.op) {
    case Op::kRead:
    case Op::kWrite:
      for (const IoSegment& segment : request.segments) {
        if (!status) break;
        status = request.op == Op::kRead ? read_range(offset_bytes, {segment.data, segment.bytes})
                                         : write_range(offset_bytes, {segment.data, segment.bytes});
        offset_bytes += segment.bytes;
      }
      break;
    case Op::kWriteZeroes: status = zero_range(request.offset_bytes, request.length_bytes); break;
    case Op::kFlush:
    case Op::kDiscard: break;
  }
  request.status = std::move(status);
  counters_.count(request, transfer_bytes(request));
  request.completion->done();
}

Result<> OverlayDevice::read_range(std::uint64_t offset_bytes, MutableBytes out) {
  TRY(base_->read(offset_bytes, out));
  std::scoped_lock guard(latch_);
  if (blocks_.empty()) return {};
  for (std::uint64_t done = 0; done < out.size();) {
    const std::uint64_t at = offset_bytes + done;
    const std::uint64_t within = at % kBlockBytes;
    const std::uint64_t bytes = std::min(kBlockBytes - within, out.size() - done);
    if (const auto found = blocks_.find(at / kBlockBytes); found != blocks_.end()) {
      std::memcpy(out.data() + done, found->second->data() + within, bytes);
    }
    done += bytes;
  }
  return {};
}

Result<> OverlayDevice::write_range(std::uint64_t offset_bytes, Bytes data) {
  for (std::uint64_t done = 0; done < data.size();) {
    const std::uint64_t at = offset_bytes + done;
    const std::uint64_t within = at % kBlockBytes;
    const std::uint64_t bytes = std::min(kBlockBytes - within, data.size() - done);
    auto fresh = std::make_unique<Block>();
    if (bytes < kBlockBytes) {  // the rest of the block is what it was
      alignas(kBlockBytes) Block old;
      TRY(base_->read(round_down(at, kBlockBytes), old));
      *fresh = old;
    }
    std::scoped_lock guard(latch_);
    auto& block = blocks_[at / kBlockBytes];
    if (block == nullptr) block = std::move(fresh);
    std::memcpy(block->data() + within, data.data() + done, bytes);
    done += bytes;
  }
  return {};
}

Result<> OverlayDevice::zero_range(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  static constexpr Block kZeroes{};
  for (std::uint64_t done = 0; done < length_bytes;) {
    const std::uint64_t within = (offset_bytes + done) % kBlockBytes;
    const std::uint64_t bytes = std::min(kBlockBytes - within, length_bytes - done);
    TRY(write_range(offset_bytes + done, Bytes(kZeroes).first(bytes)));
    done += bytes;
  }
  return {};
}

bool OverlayDevice::written(std::uint64_t offset_bytes) {
  std::scoped_lock guard(latch_);
  return blocks_.contains(offset_bytes / kBlockBytes);
}

std::uint64_t OverlayDevice::written_bytes() {
  std::scoped_lock guard(latch_);
  return blocks_.size() * kBlockBytes;
}

}  // namespace kelda::blockdev
