// For the tests of engine/: a database on a simulated disk, and its power cuts.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "blockdev/memory_sim.h"
#include "kelda/kelda.h"
#include "runtime/core.h"

namespace kelda::engine {

#define ASSERT_OK(...)                                                   \
  do {                                                                   \
    auto&& kelda_ok = (__VA_ARGS__);                                     \
    ASSERT_TRUE(kelda_ok.has_value()) << kelda_ok.error().to_string();   \
  } while (0)
#define EXPECT_OK(...)                                                   \
  do {                                                                   \
    auto&& kelda_ok = (__VA_ARGS__);                                     \
    EXPECT_TRUE(kelda_ok.has_value()) << kelda_ok.error().to_string();   \
  } while (0)

inline DatabaseOptions small_options() {
  DatabaseOptions options;
  options.memory_bytes = 24_MiB;
  options.create_if_blank = true;
  return options;
}

// The disk stays reachable after the database took it over.
struct OpenDatabase {
  blockdev::MemoryDevice* disk = nullptr;
  std::unique_ptr<Database> db;
  OpenReport report;
};

inline Result<OpenDatabase> open_on(std::unique_ptr<blockdev::MemoryDevice> disk, DatabaseOptions options = small_options()) {
  OpenDatabase out;
  out.disk = disk.get();
  out.db = TRY(Database::open(std::move(disk), options, &out.report));
  return out;
}

inline std::unique_ptr<blockdev::MemoryDevice> blank_disk(std::uint64_t size_bytes = 64_MiB, blockdev::FaultPlan plan = {}) {
  return std::make_unique<blockdev::MemoryDevice>(blockdev::MemoryOptions{.size_bytes = size_bytes}, std::move(plan));
}

// Runs the body as a fiber on `cores` cores.
inline void on_cores(std::uint32_t cores, std::move_only_function<void(runtime::Runtime&)> body) {
  auto done = runtime::Runtime::run({.core_count = cores}, [&](runtime::Runtime& rt) {
    body(rt);
    return 0;
  });
  ASSERT_TRUE(done.has_value()) << done.error().to_string();
}

// Runs body(i) in `per_core` fibers on every core, and waits.
inline void in_parallel(runtime::Runtime& rt, std::uint32_t per_core, const std::function<void(std::uint32_t)>& body) {
  runtime::Completion all;
  all.add(rt.core_count() * per_core);
  for (std::uint32_t i = 0; i < rt.core_count() * per_core; ++i) {
    auto spawned = rt.core(i % rt.core_count()).spawn_remote([&, i] {
      body(i);
      all.done();
    });
    ASSERT_TRUE(spawned.has_value());
  }
  all.wait();
}

}  // namespace kelda::engine
