// The blocking forms, the same for every device.
#include "blockdev/blockdev.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

#include "common/assert.h"

namespace kelda::blockdev {

namespace {

// Enough to keep a device busy with a long transfer.
constexpr std::size_t kPartsInFlight = 8;

}  // namespace

Result<> BlockDevice::register_buffers(MutableBytes) {
  return Error(Code::kUnsupported, info().driver + " does not register buffers");
}

Result<> BlockDevice::transfer(Op op, std::uint64_t offset_bytes, std::byte* data, std::uint64_t bytes) {
  const std::uint64_t longest = round_down(info().max_transfer_bytes, info().block_bytes);
  while (bytes > 0) {
    std::array<Request, kPartsInFlight> parts;
    std::array<IoSegment, kPartsInFlight> segments;
    std::array<Request*, kPartsInFlight> batch;
    runtime::Completion completion;
    std::size_t count = 0;
    for (; count < kPartsInFlight && bytes > 0; ++count) {
      const std::uint64_t part = std::min(bytes, longest);
      segments[count] = {data, part};
      parts[count].op = op;
      parts[count].offset_bytes = offset_bytes;
      parts[count].segments = {&segments[count], 1};
      parts[count].completion = &completion;
      batch[count] = &parts[count];
      data += part;
      offset_bytes += part;
      bytes -= part;
    }
    completion.add(static_cast<std::uint32_t>(count));
    submit({batch.data(), count});
    completion.wait();
    for (std::size_t i = 0; i < count; ++i) TRY(std::move(parts[i].status));
  }
  return {};
}

Result<> BlockDevice::one(Request request) {
  runtime::Completion completion;
  request.completion = &completion;
  Request* const batch[] = {&request};
  completion.add();
  submit(batch);
  completion.wait();
  return std::move(request.status);
}

Result<> BlockDevice::read(std::uint64_t offset_bytes, MutableBytes out) {
  return transfer(Op::kRead, offset_bytes, out.data(), out.size());
}

Result<> BlockDevice::write(std::uint64_t offset_bytes, Bytes data) {
  return transfer(Op::kWrite, offset_bytes, const_cast<std::byte*>(data.data()), data.size());
}

Result<> BlockDevice::write_durable(std::uint64_t offset_bytes, Bytes data) {
  const IoSegment segment{const_cast<std::byte*>(data.data()), data.size()};
  return one({.op = Op::kWrite, .fua = true, .offset_bytes = offset_bytes, .segments = {&segment, 1}});
}

Result<> BlockDevice::flush() { return one({.op = Op::kFlush}); }

Result<> BlockDevice::discard(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  return one({.op = Op::kDiscard, .offset_bytes = offset_bytes, .length_bytes = length_bytes});
}

Result<> BlockDevice::write_zeroes(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  if (info().has_write_zeroes) {
    return one({.op = Op::kWriteZeroes, .offset_bytes = offset_bytes, .length_bytes = length_bytes});
  }
  const std::uint64_t piece = std::min<std::uint64_t>(length_bytes, info().max_transfer_bytes);
  if (piece == 0) return {};
  const std::size_t alignment = std::max<std::size_t>(info().block_bytes, kPageBytes);
  std::unique_ptr<void, decltype(&std::free)> zeroes(std::aligned_alloc(alignment, round_up(piece, alignment)), std::free);
  if (zeroes == nullptr) return Error(Code::kOutOfMemory, "no memory to write zeroes from");
  std::fill_n(static_cast<std::byte*>(zeroes.get()), piece, std::byte{0});
  for (std::uint64_t done = 0; done < length_bytes; done += piece) {
    const std::uint64_t part = std::min(piece, length_bytes - done);
    TRY(write(offset_bytes + done, {static_cast<std::byte*>(zeroes.get()), part}));
  }
  return {};
}

}  // namespace kelda::blockdev
