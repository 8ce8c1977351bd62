#include "disk/io_batch.h"

#include <utility>

#include "common/assert.h"
#include "common/planted_bug.h"

namespace kelda::disk {

void IoBatch::add(blockdev::Op op, std::uint64_t offset_bytes, std::byte* data, std::uint32_t size_bytes) {
  planned_.push_back({op, offset_bytes, segments_.size(), 1, size_bytes});
  segments_.push_back({data, size_bytes});
}

std::vector<blockdev::Request> IoBatch::submit_and_wait(blockdev::BlockDevice& device, const std::vector<Planned>& planned) {
  std::vector<blockdev::Request> requests(planned.size());
  std::vector<blockdev::Request*> pointers(planned.size());
  runtime::Completion completion;
  completion.add(static_cast<std::uint32_t>(planned.size()));
  for (std::size_t i = 0; i < planned.size(); ++i) {
    requests[i].op = planned[i].op;
    requests[i].offset_bytes = planned[i].offset_bytes;
    requests[i].length_bytes = planned[i].size_bytes;
    requests[i].segments = std::span(segments_).subspan(planned[i].first_segment, planned[i].segment_count);
    requests[i].completion = &completion;
    pointers[i] = &requests[i];
  }
  if (!pointers.empty()) {
    device.submit(pointers);
    completion.wait();
  }
  return requests;
}

Result<> IoBatch::run(blockdev::BlockDevice& device) {
  std::vector<Planned> merged;
  for (const Planned& one : planned_) {
    Planned* last = merged.empty() ? nullptr : &merged.back();
    if (last != nullptr && last->op == one.op && last->offset_bytes + last->size_bytes == one.offset_bytes &&
        last->size_bytes + one.size_bytes <= device.info().max_transfer_bytes) {
      last->size_bytes += one.size_bytes;
      ++last->segment_count;
    } else {
      merged.push_back(one);
    }
  }
  std::vector<blockdev::Request> requests = submit_and_wait(device, merged);
  for (blockdev::Request& request : requests) TRY(std::move(request.status));
  return {};
}

void IoBatch::run_each(blockdev::BlockDevice& device, std::span<Result<>> status) {
  KELDA_ASSERT(status.size() == planned_.size());
  std::vector<blockdev::Request> requests = submit_and_wait(device, planned_);
  for (std::size_t i = 0; i < requests.size(); ++i) status[i] = std::move(requests[i].status);
}

Result<> flush_device(blockdev::BlockDevice& device) {
  if (!device.info().has_flush) return {};
  if (planted(Bug::kFailedFlushRetried) && device.flush()) return {};
  return device.flush();
}

}  // namespace kelda::disk
