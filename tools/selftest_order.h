// Numbered writes and what is left of them: the test that a real power cut makes meaningful.
//
//   write:  batches of records; a batch's writes are in flight together, and the next one begins when it is durable (one
//           flush for the batch, or every write with FUA). Then the highest number is acknowledged: noted where the power
//           cut does not reach.
//   verify: every acknowledged record is there, whole, or overwritten by a newer one. And since batch n is written only after
//           all before it are durable, one block of batch n proves that all earlier ones had to be there.
//
// Record n lies in slot n modulo the number of slots; sizes follow from the seed, which the first block tells.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "blockdev/blockdev.h"
#include "common/function_ref.h"

namespace kelda::tools {

struct OrderVerdict {
  std::uint64_t seed = 0;
  std::uint64_t highest_seen = 0;   // number of a record of which something is there
  std::uint64_t durable_below = 0;  // everything below had to be there: acknowledged, or followed by a later batch
  std::uint64_t checked = 0;        // records that had to be there and were not overwritten
  std::uint64_t lost = 0;           // of these, those that are not whole
  std::uint64_t misdirected = 0;
  // Records that no flush had covered: whole, or in part.
  std::uint64_t unflushed_whole = 0, unflushed_torn = 0;
  std::uint64_t smallest_piece_bytes = 0;  // of a torn one; 0: none was torn
  std::string first_problem;
};

// Until stop() says so or the device fails. `acknowledge` gets each number that is durable with all before it.
Result<> write_numbers(blockdev::BlockDevice& device, std::uint64_t seed, FunctionRef<bool()> stop, FunctionRef<void(std::uint64_t)> acknowledge);

// kNotFound: no such test was written here.
Result<OrderVerdict> verify_numbers(blockdev::BlockDevice& device, std::uint64_t acknowledged);

}  // namespace kelda::tools
