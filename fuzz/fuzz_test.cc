// Every target for a moment, without libFuzzer: what once failed, the corpus, and seeded random changes of both.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <vector>

#include "common/prng.h"
#include "fuzz/fuzz_target.h"
#include "fuzz/stored_inputs.h"

namespace kelda::fuzz {
namespace {

using Text = std::vector<std::byte>;

// One of a few small changes, as a fuzzer makes them.
void mutate(Text& text, Prng& dice, std::size_t max_bytes) {
  const auto random_byte = [&] { return static_cast<std::byte>(dice.next()); };
  switch (text.empty() ? 3 : dice.below(6)) {
    case 0: text[dice.below(text.size())] ^= std::byte{1} << dice.below(8); break;
    case 1: text[dice.below(text.size())] = random_byte(); break;
    case 2: text.erase(text.begin() + static_cast<std::ptrdiff_t>(dice.below(text.size()))); break;
    case 3:
      for (std::uint64_t count = dice.between(1, 40); count > 0; --count) {
        text.insert(text.begin() + static_cast<std::ptrdiff_t>(dice.below(text.size() + 1)), random_byte());
      }
      break;
    case 4: {  // a piece of itself, once more
      const std::size_t from = dice.below(text.size()), length = std::min(text.size() - from, dice.between(1, 64));
      const Text piece(text.begin() + static_cast<std::ptrdiff_t>(from), text.begin() + static_cast<std::ptrdiff_t>(from + length));
      text.insert(text.begin() + static_cast<std::ptrdiff_t>(dice.below(text.size() + 1)), piece.begin(), piece.end());
      break;
    }
    default: text.resize(dice.below(text.size()) + 1); break;
  }
  if (text.size() > max_bytes) text.resize(max_bytes);
}

class Fuzz : public testing::TestWithParam<const FuzzTarget*> {};

TEST_P(Fuzz, StoredInputs) {
  for (const StoredInput& input : kStoredInputs) {
    if (input.target == GetParam()->name) {
      SCOPED_TRACE(input.file);
      GetParam()->run(input.bytes);
    }
  }
}

// KELDA_FUZZ_SEED repeats a run; a failure names the input by the seed and the number of the last change.
TEST_P(Fuzz, SeededChanges) {
  const FuzzTarget& target = *GetParam();
  const char* given = std::getenv("KELDA_FUZZ_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : 1;
  std::vector<Text> pool = {{}};
  for (const StoredInput& input : kStoredInputs) {
    if (input.target == target.name) pool.emplace_back(input.bytes.begin(), input.bytes.end());
  }
  Prng dice(seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  std::uint64_t runs = 0;
  for (; std::chrono::steady_clock::now() < end; ++runs) {
    Text& text = pool[dice.below(pool.size())];
    Text changed = text;
    for (std::uint64_t count = dice.between(1, 8); count > 0; --count) mutate(changed, dice, target.max_bytes);
    target.run(changed);
    // Changes pile up, so that inputs grow to a length at which something happens.
    if (pool.size() < 64) pool.push_back(std::move(changed));
    else text = std::move(changed);
  }
  EXPECT_GT(runs, 0U);
}

INSTANTIATE_TEST_SUITE_P(All, Fuzz, testing::ValuesIn(kTargets), [](const auto& param) { return std::string(param.param->name); });

}  // namespace
}  // namespace kelda::fuzz
