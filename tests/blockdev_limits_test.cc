// Hosted devices at their limits: a full filesystem, a write that ends early, a block device. Those that need root or
// a loop device say so and skip.
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <thread>

#include "tests/blockdev_file_testing.h"

namespace kelda::blockdev {
namespace {

class DeviceLimits : public FileDevice {};

INSTANTIATE_TEST_SUITE_P(Ways, DeviceLimits, testing::Values("on", "off"));

// A sparse file on a small filesystem: the device looks large until its blocks are wanted.
TEST_P(DeviceLimits, AFullFilesystemIsNoSpace) {
  bool mounted = false;
  std::thread([&] {  // the mount is seen by this thread alone and vanishes with it
    mounted = unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
              mount("none", folder_.c_str(), "tmpfs", 0, "size=1m") == 0;
    if (!mounted) return;
    in_fiber([&] {
      auto device = make(64_MiB);
      ASSERT_NE(device, nullptr);
      Buffer data(256_KiB, 3), read(256_KiB);
      Result<> result;
      std::uint64_t at = 0;
      for (; at < 8_MiB && result; at += 256_KiB) result = device->write(at, data.all());
      ASSERT_TRUE(result.failed_with(Code::kNoSpace)) << at;
      EXPECT_NE(result.error().message().find("No space left on device"), std::string::npos);
      EXPECT_TRUE(device->read(0, read.all()));
      EXPECT_TRUE(read == data);
      ASSERT_TRUE(device->discard(0, 512_KiB));
      EXPECT_TRUE(device->write(4_MiB, data.all()));
    });
  }).join();
  if (!mounted) GTEST_SKIP() << "needs the right to mount";
}

// The process's file size limit cuts a write in two: the rest is tried, and its error is the request's.
TEST_P(DeviceLimits, AWriteThatEndsEarlyFailsWithTheErrorOfItsRest) {
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_IGN);
  in_fiber([&] {
    auto device = make();
    Buffer data(64_KiB, 4), read(64_KiB);
    for (const bool fua : {false, true}) {
      for (const std::uint64_t fits : {16_KiB, 0_KiB}) {
        const rlimit limit{1_MiB + fits, before.rlim_max};
        ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
        const Result<> result = fua ? device->write_durable(1_MiB, data.all()) : device->write(1_MiB, data.all());
        ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
        EXPECT_TRUE(result.failed_with(Code::kNoSpace)) << fua << fits;
        ASSERT_TRUE(device->read(1_MiB, read.all()));
        EXPECT_EQ(std::memcmp(read.all().data(), data.all().data(), fits), 0);
        EXPECT_TRUE(device->write_durable(1_MiB, data.all()));
      }
    }
  });
  signal(SIGXFSZ, SIG_DFL);
}

TEST_P(DeviceLimits, ABlockDeviceIsServed) {
  const int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
  const int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
  if (control >= 0) close(control);
  if (number < 0) GTEST_SKIP() << "needs root and loop devices";
  const std::string name = "/dev/loop" + std::to_string(number);
  const int backing = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(ftruncate(backing, 8 << 20), 0);
  const int loop = ::open(name.c_str(), O_RDWR | O_CLOEXEC);
  if (loop < 0 || ioctl(loop, LOOP_SET_FD, backing) != 0) {
    close(backing);
    GTEST_SKIP() << "needs root and a free loop device";
  }
  in_fiber([&] {
    auto opened = open(name);
    ASSERT_TRUE(opened) << opened.error().to_string();
    BlockDevice& device = **opened;
    EXPECT_EQ(device.info().size_bytes, 8_MiB);
    EXPECT_EQ(device.info().block_bytes, 512u);
    EXPECT_TRUE(open(name).failed_with(Code::kBusy));
    Buffer data(64_KiB, 5), read(64_KiB), zeroes(64_KiB);
    ASSERT_TRUE(device.write(1_MiB, data.all()));
    ASSERT_TRUE(device.flush());
    ASSERT_TRUE(device.read(1_MiB, read.all()));
    EXPECT_TRUE(read == data);
    ASSERT_TRUE(device.write_zeroes(1_MiB, 64_KiB));
    ASSERT_TRUE(device.read(1_MiB, read.all()));
    EXPECT_TRUE(read == zeroes);
    EXPECT_TRUE(!device.info().has_discard || device.discard(0, 1_MiB));
  });
  EXPECT_EQ(ioctl(loop, LOOP_CLR_FD), 0);
  close(loop);
  close(backing);
}

}  // namespace
}  // namespace kelda::blockdev
