// Files of Linux as devices: what is written is read back, bad names are refused with words, a second user is kept out.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <thread>
#include <vector>

#include "blockdev/disk_claim_hosted.h"
#include "runtime/ring_hosted.h"
#include "tests/blockdev_file_testing.h"

namespace kelda::blockdev {
namespace {

using runtime::Runtime;

INSTANTIATE_TEST_SUITE_P(Ways, FileDevice, testing::Values("on", "off"));

TEST_P(FileDevice, ReadsBackWhatWasWritten) {
  in_fiber([&] {
    auto device = make();
    EXPECT_EQ(device->info().size_bytes, 8_MiB);
    EXPECT_TRUE(device->info().has_flush);
    EXPECT_EQ(device->info().driver.substr(0, 5), std::string_view(GetParam()) == "on" ? "io_ur" : "pread");
    Buffer written(3_MiB, 7), read(3_MiB);
    ASSERT_TRUE(device->write(1_MiB, written.all()));
    ASSERT_TRUE(device->flush());
    ASSERT_TRUE(device->read(1_MiB, read.all()));
    EXPECT_TRUE(written == read);
    EXPECT_EQ(device->stats().writes, 3u);
    EXPECT_EQ(device->stats().write_bytes, 3_MiB);
    EXPECT_EQ(device->stats().flushes, 1u);
    EXPECT_EQ(device->stats().errors, 0u);
  });
  std::ifstream file(path_, std::ios::binary);
  file.seekg(1_MiB + 1);
  EXPECT_EQ(file.get(), 31 + 7);
}

TEST_P(FileDevice, CreatesSparse) {
  in_fiber([&] {
    auto device = make(1_GiB);
    struct stat what;
    ASSERT_EQ(stat(path_.c_str(), &what), 0);
    EXPECT_EQ(what.st_size, static_cast<off_t>(1_GiB));
    EXPECT_LT(what.st_blocks, 64);
    EXPECT_EQ(what.st_mode & 07777, 0600u);
  });
}

TEST_P(FileDevice, WhatWasCreatedAndNeverWrittenGoesAgain) {
  in_fiber([&] {
    make().reset();
    EXPECT_FALSE(std::filesystem::exists(path_));
    std::filesystem::create_symlink("target", folder_ + "/link");
    EXPECT_TRUE(open(folder_ + "/link", {.create_bytes = 1_MiB}));
    EXPECT_TRUE(std::filesystem::is_symlink(folder_ + "/link"));
    EXPECT_FALSE(std::filesystem::exists(folder_ + "/target"));
    std::ofstream(path_).flush();
    make().reset();
    EXPECT_EQ(std::filesystem::file_size(path_), 0u) << "it was there, and empty";
    make_written();
    EXPECT_EQ(std::filesystem::file_size(path_), 8_MiB);
    EXPECT_TRUE(open(path_, {.create_bytes = 1_MiB}));
    EXPECT_EQ(std::filesystem::file_size(path_), 8_MiB) << "a size is given once";
  });
}

TEST_P(FileDevice, MakesNoFilesAmongDevices) {
  in_fiber([&] {
    const std::string name = "/dev/kelda-no-such-device";
    const auto opened = open(name, {.create_bytes = 1_MiB});
    ASSERT_TRUE(opened.failed_with(Code::kInvalidArgument));
    EXPECT_NE(opened.error().message().find("in another folder"), std::string::npos);
    EXPECT_FALSE(std::filesystem::exists(name));
  });
}

TEST_P(FileDevice, ManySegmentsAndManyRequestsAtOnce) {
  in_fiber([&] {
    auto device = make();
    Buffer written(64 * 8192, 3), read(64 * 8192);
    for (Op op : {Op::kWrite, Op::kRead}) {
      Buffer& memory = op == Op::kWrite ? written : read;
      runtime::Completion completion;
      std::vector<Request> requests(64);
      std::vector<IoSegment> segments;
      for (std::size_t i = 0; i < 128; ++i) segments.push_back({memory.part(i * 4096, 4096).data(), 4096});
      std::vector<Request*> batch;
      for (std::size_t i = 0; i < 64; ++i) {
        requests[i].op = op;
        requests[i].fua = op == Op::kWrite && i % 8 == 0;
        requests[i].offset_bytes = (63 - i) * 8192;
        requests[i].segments = std::span(segments).subspan(2 * i, 2);
        requests[i].completion = &completion;
        batch.push_back(&requests[i]);
      }
      completion.add(64);
      device->submit(batch);
      completion.wait();
      for (Request& request : requests) EXPECT_TRUE(request.status);
    }
    EXPECT_TRUE(written == read);
  });
}

TEST_P(FileDevice, ZeroesAndDiscards) {
  in_fiber([&] {
    auto device = make();
    Buffer written(1_MiB, 9), read(64_KiB), zeroes(64_KiB);
    ASSERT_TRUE(device->write(0, written.all()));
    ASSERT_TRUE(device->write_zeroes(128_KiB, 64_KiB));
    ASSERT_TRUE(device->read(128_KiB, read.all()));
    EXPECT_TRUE(read == zeroes);
    if (device->info().has_discard) {
      EXPECT_TRUE(device->discard(256_KiB, 64_KiB));
    } else {
      EXPECT_TRUE(device->discard(256_KiB, 64_KiB).failed_with(Code::kUnsupported));
    }
  });
}

TEST_P(FileDevice, EveryCoreAndPlainThreadMayUseIt) {
  std::unique_ptr<BlockDevice> device;
  in_fiber([&] { device = make(); });
  Result<int> ran = Runtime::run({.core_count = 2}, [&](Runtime& runtime) {
    runtime::Completion all;
    for (std::uint32_t i = 0; i < 8; ++i) {
      all.add();
      EXPECT_TRUE(runtime.core(i % 2).spawn_remote([&, i] {
        Buffer written(16_KiB, i + 1), read(16_KiB);
        for (int n = 0; n < 20; ++n) {
          EXPECT_TRUE(device->write(i * 64_KiB, written.all()));
          EXPECT_TRUE(device->read(i * 64_KiB, read.all()));
          EXPECT_TRUE(written == read);
        }
        all.done();
      }));
    }
    all.wait();
    return 0;
  });
  ASSERT_TRUE(ran);
  std::thread([&] {
    Buffer written(16_KiB, 1), read(16_KiB);
    EXPECT_TRUE(device->read(0, read.all()));
    EXPECT_TRUE(written == read);
  }).join();
  EXPECT_EQ(device->stats().reads, 161u);
}

TEST_P(FileDevice, RefusesWhatIsNotADisk) {
  in_fiber([&] {
    EXPECT_TRUE(open(path_).failed_with(Code::kNotFound));
    EXPECT_TRUE(open(folder_).failed_with(Code::kInvalidArgument));
    EXPECT_TRUE(open("/dev/null").failed_with(Code::kInvalidArgument));
    EXPECT_TRUE(open(folder_ + "/no/such/folder", {.create_bytes = 1_MiB}).failed_with(Code::kInvalidArgument));
    std::ofstream(folder_ + "/empty").flush();
    EXPECT_TRUE(open(folder_ + "/empty").failed_with(Code::kTooSmall));
    EXPECT_TRUE(open(folder_ + "/empty", {.read_only = true, .create_bytes = 1_MiB}).failed_with(Code::kTooSmall));
    EXPECT_TRUE(open(folder_ + "/empty", {.create_bytes = std::uint64_t{1} << 62}).failed_with(Code::kNoSpace));
    EXPECT_TRUE(open(folder_ + "/empty/below").failed_with(Code::kInvalidArgument));
    EXPECT_TRUE(open(path_, {.create_bytes = std::uint64_t{1} << 62}).failed_with(Code::kNoSpace));
    EXPECT_TRUE(open(path_, {.create_bytes = std::uint64_t{1} << 63}).failed_with(Code::kIo)) << "no size at all";
    EXPECT_FALSE(std::filesystem::exists(path_)) << "what could not be made is not left behind";
  });
}

TEST_P(FileDevice, KeepsASecondUserOut) {
  in_fiber([&] {
    make_written();
    auto device = make();
    EXPECT_TRUE(open(path_).failed_with(Code::kBusy));
    EXPECT_TRUE(open(path_, {.read_only = true}).failed_with(Code::kBusy));
    device.reset();
    auto reader = open(path_, {.read_only = true});
    auto second_reader = open(path_, {.read_only = true});
    EXPECT_TRUE(reader);
    EXPECT_TRUE(second_reader);
    EXPECT_TRUE(open(path_).failed_with(Code::kBusy));
  });
}

// The host's side of a machine: nobody else may have the disk, but QEMU may.
TEST_P(FileDevice, AClaimForAMachineLetsItsQemuIn) {
  in_fiber([&] {
    make_written();
    auto claim = DiskClaim::take(path_, DiskUse::kMachine, 0);
    ASSERT_TRUE(claim);
    EXPECT_TRUE(open(path_).failed_with(Code::kBusy));
    EXPECT_TRUE(open(path_, {.read_only = true}).failed_with(Code::kBusy));
    EXPECT_TRUE(DiskClaim::take(path_, DiskUse::kMachine, 0).failed_with(Code::kBusy));
    EXPECT_TRUE(DiskClaim::take(path_, DiskUse::kLook, 0)) << "what is only looked at may be in use";
    const int fd = ::open(path_.c_str(), O_RDWR);
    struct flock qemu {};
    qemu.l_type = F_WRLCK;  // nobody holds one
    qemu.l_start = 100;
    qemu.l_len = 200;
    EXPECT_EQ(fcntl(fd, F_OFD_GETLK, &qemu), 0);
    EXPECT_EQ(qemu.l_type, F_UNLCK);
    claim->reset();
    auto writer = open(path_);
    ASSERT_TRUE(writer);
    qemu.l_type = F_WRLCK;
    qemu.l_pid = 0;
    EXPECT_EQ(fcntl(fd, F_OFD_GETLK, &qemu), 0);
    EXPECT_EQ(qemu.l_type, F_RDLCK) << "keeps QEMU out";
    close(fd);
  });
}

// QEMU locks single bytes of the images it runs on.
TEST_P(FileDevice, KeepsOutOfARunningMachine) {
  in_fiber([&] {
    make_written();
    const int fd = ::open(path_.c_str(), O_RDWR);
    struct flock lock {};
    lock.l_type = F_RDLCK;
    lock.l_start = 101;
    lock.l_len = 1;
    ASSERT_EQ(fcntl(fd, F_OFD_SETLK, &lock), 0);
    EXPECT_TRUE(open(path_).failed_with(Code::kBusy));
    EXPECT_TRUE(open(path_, {.read_only = true}).failed_with(Code::kBusy));
    close(fd);
    EXPECT_TRUE(open(path_));
  });
}

TEST_P(FileDevice, AFileThatShrankIsAnError) {
  in_fiber([&] {
    auto device = make();
    ASSERT_EQ(truncate(path_.c_str(), 4_MiB + 4096), 0);
    Buffer read(8192);
    const Result<> result = device->read(4_MiB, read.all());
    ASSERT_TRUE(result.failed_with(Code::kIo));
    EXPECT_NE(result.error().message().find(path_), std::string::npos);
    EXPECT_NE(result.error().message().find("ended early"), std::string::npos);
    EXPECT_EQ(device->stats().errors, 1u);
  });
}

TEST_P(FileDevice, RegisteredBuffersReadAndWrite) {
  in_fiber([&] {
    auto device = make();
    Buffer memory(64_KiB, 5), copy(64_KiB, 5);
    const Result<> registered = device->register_buffers(memory.all());
    EXPECT_TRUE(registered.has_value() || registered.failed_with(Code::kUnsupported));
    ASSERT_TRUE(device->write(0, memory.all()));
    std::fill_n(memory.all().data(), 64_KiB, std::byte{0});
    ASSERT_TRUE(device->read(0, memory.all()));
    EXPECT_TRUE(memory == copy);
  });
}

// However full the submission queue is when they come: the second must see that the first failed.
TEST_P(FileDevice, OfTwoLinkedOperationsTheSecondNeverRunsAlone) {
  in_fiber([] {
    runtime::Ring* ring = runtime::Ring::of(runtime::Core::current());
    if (ring == nullptr) GTEST_SKIP() << "no io_uring";
    struct Op : runtime::UringOp {
      runtime::Completion* both = nullptr;
      int result = 1;
    };
    for (int queued_before = 0; queued_before < 600; queued_before += queued_before < 505 ? 101 : 1) {
      for (int i = 0; i < queued_before; ++i) ring->queue_unheeded([](io_uring_sqe* sqe) { io_uring_prep_nop(sqe); });
      runtime::Completion both;
      both.add(2);
      Op first, second;
      for (Op* op : {&first, &second}) {
        op->both = &both;
        op->complete = [](runtime::UringOp& done, int result, std::uint32_t) {
          static_cast<Op&>(done).result = result;
          static_cast<Op&>(done).both->done();
        };
      }
      ring->queue_linked(
          first, [](io_uring_sqe* sqe) { io_uring_prep_read(sqe, -1, nullptr, 0, 0); }, second,
          [](io_uring_sqe* sqe) { io_uring_prep_nop(sqe); });
      both.wait();
      ASSERT_EQ(first.result, -EBADF);
      ASSERT_EQ(second.result, -ECANCELED) << "with " << queued_before << " queued before";
    }
  });
}

// Fibers that wait for I/O when the runtime ends: their stacks go only after the device is done with them.
TEST_P(FileDevice, TheEndWaitsForIoInFlight) {
  in_fiber([&] {
    static std::unique_ptr<BlockDevice> device;
    device = make();
    for (int i = 0; i < 16; ++i) {
      EXPECT_TRUE(runtime::Core::current().spawn([&] {
        alignas(4096) std::byte page[8192];
        for (;;) EXPECT_TRUE(device->read(0, page));
      }));
    }
    runtime::Core::current().sleep_until(runtime::now_ns() + 2'000'000);
  });
}

}  // namespace
}  // namespace kelda::blockdev
