#include "tools/selftest_order.h"

#include <algorithm>
#include <array>
#include <optional>

#include <fmt/format.h>

#include "disk/aligned_buffer.h"
#include "disk/io_batch.h"
#include "tools/selftest.h"
#include "tools/selftest_blocks.h"

namespace kelda::tools {

namespace {

constexpr std::uint64_t kSlotBytes = 64_KiB;
constexpr std::uint64_t kFirstSlot = 1_MiB;
constexpr std::uint64_t kMostSlots = 1024;
constexpr std::uint64_t kMostRecords = 8;  // in a batch

struct Place {
  explicit Place(const blockdev::DeviceInfo& info)
      : block_bytes(info.block_bytes), slot_bytes(std::min<std::uint64_t>(kSlotBytes, round_down(info.max_transfer_bytes, info.block_bytes))),
        slots(std::min(kMostSlots, (selftest_bytes(info) - kFirstSlot) / slot_bytes)) {}
  std::uint64_t of(std::uint64_t number) const { return kFirstSlot + number % slots * slot_bytes; }
  std::uint64_t block_bytes, slot_bytes, slots;
};

// What the writer does, again for whoever verifies.
class Plan {
 public:
  Plan(std::uint64_t seed, const Place& place) : prng_(seed), most_blocks_(place.slot_bytes / place.block_bytes) {}
  struct Batch {
    std::uint64_t first;
    std::vector<std::uint64_t> blocks;  // of each record
    bool fua;
  };
  Batch next() {
    Batch batch{next_, {}, prng_.one_in(2)};
    for (std::uint64_t n = prng_.between(1, kMostRecords); n > 0; --n) batch.blocks.push_back(prng_.between(1, most_blocks_));
    next_ += batch.blocks.size();
    return batch;
  }

 private:
  Prng prng_;
  std::uint64_t most_blocks_, next_ = 1;
};

Result<> write_batch(blockdev::BlockDevice& device, const Place& place, std::uint64_t seed, const Plan::Batch& batch,
                     disk::AlignedBuffer& buffer) {
  const bool fua = batch.fua && device.info().has_fua;
  std::array<blockdev::Request, kMostRecords> requests;
  std::array<blockdev::IoSegment, kMostRecords> segments;
  std::vector<blockdev::Request*> pointers;
  runtime::Completion completion;
  for (std::size_t i = 0; i < batch.blocks.size(); ++i) {
    const std::uint64_t number = batch.first + i;
    const MutableBytes data = buffer.span().subspan(i * place.slot_bytes, batch.blocks[i] * place.block_bytes);
    fill_blocks(data, place.block_bytes, {.seed = seed, .offset = place.of(number), .number = number, .flushed_below = batch.first});
    segments[i] = {data.data(), data.size()};
    requests[i].op = blockdev::Op::kWrite;
    requests[i].fua = fua;
    requests[i].offset_bytes = place.of(number);
    requests[i].segments = {&segments[i], 1};
    requests[i].completion = &completion;
    pointers.push_back(&requests[i]);
  }
  completion.add(static_cast<std::uint32_t>(pointers.size()));
  device.submit(pointers);
  completion.wait();
  for (const blockdev::Request* request : pointers) {
    if (!request->status) return request->status.error();
  }
  return fua ? Result<>() : disk::flush_device(device);
}

class Verifier {
 public:
  Verifier(blockdev::BlockDevice& device, std::uint64_t seed) : device_(device), place_(device.info()), slots_(place_.slots) { verdict_.seed = seed; }

  Result<OrderVerdict> run(std::uint64_t acknowledged) {
    verdict_.durable_below = acknowledged + 1;
    for (std::uint64_t slot = 0; slot < place_.slots; ++slot) TRY(read_slot(slot));
    // Sizes of the newest record of each slot that had to be there.
    std::vector<std::uint64_t> number(place_.slots), blocks(place_.slots);
    Plan plan(verdict_.seed, place_);
    for (bool more = true; more;) {
      const Plan::Batch batch = plan.next();
      for (std::size_t i = 0; i < batch.blocks.size(); ++i) {
        more = batch.first + i < verdict_.durable_below;
        if (!more) break;
        number[(batch.first + i) % place_.slots] = batch.first + i;
        blocks[(batch.first + i) % place_.slots] = batch.blocks[i];
      }
    }
    for (std::uint64_t slot = 0; slot < place_.slots; ++slot) {
      if (number[slot] != 0) judge_durable(slot, number[slot], blocks[slot]);
      judge_unflushed(slots_[slot]);
    }
    return std::move(verdict_);
  }

 private:
  using Slot = std::vector<std::optional<BlockStamp>>;

  Result<> read_slot(std::uint64_t slot) {
    disk::AlignedBuffer buffer(place_.slot_bytes);
    const std::uint64_t offset = place_.of(slot);
    TRY(device_.read(offset, buffer.span().first(place_.slot_bytes)));
    for (std::uint64_t at = 0; at < place_.slot_bytes; at += place_.block_bytes) {
      auto stamp = read_stamp(buffer.span().subspan(at, place_.block_bytes));
      if (stamp && stamp->seed != verdict_.seed) stamp.reset();
      if (stamp && stamp->offset != offset + at) {
        ++verdict_.misdirected;
        problem(fmt::format("at byte {}: what was written to byte {}", offset + at, stamp->offset));
        stamp.reset();
      }
      if (stamp) {
        verdict_.highest_seen = std::max(verdict_.highest_seen, stamp->number);
        verdict_.durable_below = std::max(verdict_.durable_below, stamp->flushed_below);
      }
      slots_[slot].push_back(stamp);
    }
    return {};
  }

  void judge_durable(std::uint64_t slot, std::uint64_t number, std::uint64_t blocks) {
    ++verdict_.checked;
    for (std::uint64_t i = 0; i < blocks; ++i) {
      const auto& stamp = slots_[slot][i];
      if (stamp && stamp->number >= number) continue;
      ++verdict_.lost;
      return problem(fmt::format("record {} was durable before {} was written, but at byte {} {} is there", number, verdict_.highest_seen,
                                 place_.of(number) + i * place_.block_bytes,
                                 stamp ? fmt::format("record {}", stamp->number) : "something else"));
    }
  }

  void judge_unflushed(const Slot& slot) {
    std::uint64_t number = 0, there = 0, run = 0, smallest = ~std::uint64_t{0}, count = 0;
    for (const auto& stamp : slot) {
      if (stamp && stamp->number >= verdict_.durable_below) number = std::max(number, stamp->number);
    }
    if (number == 0) return;
    for (const auto& stamp : slot) {
      if (stamp && stamp->number == number) {
        ++there, ++run;
        count = stamp->count;
      } else if (run > 0) {
        smallest = std::min(smallest, run);
        run = 0;
      }
    }
    if (run > 0) smallest = std::min(smallest, run);
    if (there == count) {
      ++verdict_.unflushed_whole;
      return;
    }
    ++verdict_.unflushed_torn;
    const std::uint64_t bytes = smallest * place_.block_bytes;
    if (verdict_.smallest_piece_bytes == 0 || bytes < verdict_.smallest_piece_bytes) verdict_.smallest_piece_bytes = bytes;
  }

  void problem(std::string text) {
    if (verdict_.first_problem.empty()) verdict_.first_problem = std::move(text);
  }

  blockdev::BlockDevice& device_;
  const Place place_;
  std::vector<Slot> slots_;
  OrderVerdict verdict_;
};

}  // namespace

Result<> write_numbers(blockdev::BlockDevice& device, std::uint64_t seed, FunctionRef<bool()> stop,
                       FunctionRef<void(std::uint64_t)> acknowledge) {
  const Place place(device.info());
  disk::AlignedBuffer buffer(kMostRecords * place.slot_bytes);
  // Nothing of an earlier test with the same seed may pass for this one's.
  TRY(device.write_zeroes(0, kFirstSlot + place.slots * place.slot_bytes));
  TRY(disk::flush_device(device));
  const MutableBytes head = buffer.span().first(place.block_bytes);
  fill_blocks(head, place.block_bytes, {.seed = seed, .offset = 0, .number = 0});
  TRY(device.write(0, head));
  TRY(disk::flush_device(device));
  Plan plan(seed, place);
  while (!stop()) {
    const Plan::Batch batch = plan.next();
    TRY(write_batch(device, place, seed, batch, buffer));
    acknowledge(batch.first + batch.blocks.size() - 1);
  }
  return {};
}

Result<OrderVerdict> verify_numbers(blockdev::BlockDevice& device, std::uint64_t acknowledged) {
  constexpr std::uint64_t kMostNumbers = 1'000'000'000;
  if (acknowledged > kMostNumbers) return Error(Code::kInvalidArgument, "--acknowledged is higher than any test's number");
  disk::AlignedBuffer head(device.info().block_bytes);
  TRY(device.read(0, head.span().first(device.info().block_bytes)));
  const auto stamp = read_stamp(head.span().first(device.info().block_bytes));
  if (!stamp || stamp->offset != 0 || stamp->number != 0) {
    return Error(Code::kNotFound, device.info().name + ": no numbered writes are here: run --phase write first, and then cut the power");
  }
  return Verifier(device, stamp->seed).run(acknowledged);
}

}  // namespace kelda::tools
