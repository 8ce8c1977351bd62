// Shared by the tests of files as devices: aligned memory, and a folder of their own on a disk with direct I/O.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>

#include "blockdev/blockdev.h"
#include "runtime/core.h"
#include "runtime/platform_bare.h"

namespace kelda::blockdev {

using runtime::Runtime;

// Page-aligned memory with a pattern.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes, unsigned seed = 0)
      : data_(static_cast<std::byte*>(std::aligned_alloc(4096, bytes))), bytes_(bytes) {
    for (std::size_t i = 0; i < bytes; ++i) data_[i] = static_cast<std::byte>(seed == 0 ? 0 : (i * 31 + i / 4096 + seed));
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  MutableBytes all() { return {data_, bytes_}; }
  MutableBytes part(std::size_t at, std::size_t n) { return {data_ + at, n}; }
  bool operator==(const Buffer& other) const { return bytes_ == other.bytes_ && memcmp(data_, other.data_, bytes_) == 0; }

 private:
  std::byte* data_;
  std::size_t bytes_;
};

class FileDevice : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (runtime::is_bare()) GTEST_SKIP() << "there are no files in the machine";
    char pattern[] = "/var/tmp/kelda-test-XXXXXX";
    folder_ = mkdtemp(pattern);
    path_ = folder_ + "/disk";
    setenv("KELDA_IO_URING", GetParam(), 1);
  }
  void TearDown() override {
    unsetenv("KELDA_IO_URING");
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }
  // In a fiber of a runtime, so that the core's backend is made under this test's environment.
  void in_fiber(std::move_only_function<void()> body, std::uint32_t cores = 1) {
    Result<int> ran = Runtime::run({.core_count = cores}, [&](Runtime&) { return body(), 0; });
    ASSERT_TRUE(ran);
  }
  std::unique_ptr<BlockDevice> make(std::uint64_t bytes = 8_MiB) {
    auto device = open(path_, {.create_bytes = bytes});
    EXPECT_TRUE(device) << (device ? "" : device.error().to_string());
    return device ? std::move(*device) : nullptr;
  }
  // One that stays: a file that was created and never written to goes again.
  void make_written() {
    Buffer some(4096, 1);
    EXPECT_TRUE(make()->write(0, some.all()));
  }
  std::string folder_, path_;
};

}  // namespace kelda::blockdev
