// The C interface: each code that it promises, met as a program in C would meet it.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "common/types.h"
#include "kelda/kelda_c.h"
#include "runtime/platform_bare.h"

namespace kelda {
namespace {

class CApi : public testing::Test {
 protected:
  void SetUp() override {
    if (runtime::is_bare()) GTEST_SKIP() << "there are no files in the machine";
    char pattern[] = "/var/tmp/kelda-test-XXXXXX";
    folder_ = mkdtemp(pattern);
    path_ = folder_ + "/disk";
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }
  kelda_code open(kelda_database** db) {
    const kelda_options options{.memory_bytes = 24_MiB, .create_bytes = 20_MiB, .durability_none = 0, .lock_timeout_us = 0};
    return kelda_open(path_.c_str(), &options, db);
  }
  kelda_database* must_open() {
    kelda_database* db = nullptr;
    EXPECT_EQ(open(&db), KELDA_OK) << kelda_error_message();
    EXPECT_EQ(kelda_open_tree(db, "t", 1, &tree_), KELDA_OK) << kelda_error_message();
    return db;
  }
  kelda_transaction* begin(kelda_database* db) {
    kelda_transaction* txn = nullptr;
    EXPECT_EQ(kelda_begin(db, &txn), KELDA_OK);
    return txn;
  }
  kelda_code put(kelda_transaction* txn, const std::string& key, const std::string& value) {
    return kelda_put(txn, tree_, key.data(), key.size(), value.data(), value.size());
  }
  kelda_code get(kelda_transaction* txn, const std::string& key) {
    const void* value;
    std::size_t bytes;
    return kelda_get(txn, tree_, key.data(), key.size(), &value, &bytes);
  }
  void put_and_commit(kelda_database* db, int keys) {
    kelda_transaction* txn = begin(db);
    for (int i = 0; i < keys; ++i) EXPECT_EQ(put(txn, "key" + std::to_string(i), std::string(9000, 'v')), KELDA_OK);
    EXPECT_EQ(kelda_commit(txn), KELDA_OK) << kelda_error_message();
  }

  std::string folder_, path_;
  kelda_tree tree_{};
};

TEST_F(CApi, WhatTheCallerDidWrong) {
  kelda_database* db = nullptr;
  EXPECT_EQ(kelda_open((folder_ + "/none").c_str(), nullptr, &db), KELDA_NOT_FOUND);
  EXPECT_NE(std::string(kelda_error_message()).find("/none"), std::string::npos);
  EXPECT_EQ(kelda_open(folder_.c_str(), nullptr, &db), KELDA_INVALID_ARGUMENT);
  db = must_open();
  kelda_database* second = nullptr;
  EXPECT_EQ(open(&second), KELDA_BUSY);
  kelda_tree none;
  EXPECT_EQ(kelda_open_tree(db, "none", 0, &none), KELDA_NOT_FOUND);
  EXPECT_EQ(kelda_open_tree(db, "", 1, &none), KELDA_INVALID_ARGUMENT);
  kelda_transaction* txn = begin(db);
  EXPECT_EQ(put(txn, std::string(100'000, 'k'), "v"), KELDA_TOO_LARGE);
  EXPECT_EQ(get(txn, "absent"), KELDA_NOT_FOUND);
  EXPECT_EQ(kelda_remove(txn, tree_, "absent", 6), KELDA_NOT_FOUND);
  kelda_scan* scan = nullptr;
  EXPECT_EQ(kelda_scan_open(txn, tree_, "", 0, &scan), KELDA_NOT_FOUND) << "an empty tree";
  EXPECT_EQ(kelda_commit(txn), KELDA_OK);
  EXPECT_EQ(kelda_close(db), KELDA_OK) << kelda_error_message();
}

TEST_F(CApi, AFailedOpenLeavesNothing) {
  kelda_database* db = nullptr;
  const kelda_options too_small{.memory_bytes = 24_MiB, .create_bytes = 1_MiB, .durability_none = 0, .lock_timeout_us = 0};
  EXPECT_NE(kelda_open(path_.c_str(), &too_small, &db), KELDA_OK);
  EXPECT_FALSE(std::filesystem::exists(path_));
  std::ofstream(path_).flush();
  EXPECT_NE(kelda_open(path_.c_str(), &too_small, &db), KELDA_OK);
  EXPECT_EQ(std::filesystem::file_size(path_), 0u);
  EXPECT_EQ(kelda_close(must_open()), KELDA_OK);  // as if nothing had been
}

TEST_F(CApi, AnotherTransactionHasIt) {
  kelda_database* db = must_open();
  kelda_transaction* one = begin(db);
  kelda_transaction* two = begin(db);
  EXPECT_EQ(put(one, "a", "1"), KELDA_OK);
  EXPECT_EQ(put(two, "b", "1"), KELDA_OK);
  kelda_scan* scan = nullptr;
  EXPECT_EQ(kelda_scan_open(two, tree_, "", 0, &scan), KELDA_SELF_DEADLOCK);
  EXPECT_EQ(put(two, "a", "2"), KELDA_SELF_DEADLOCK);
  EXPECT_NE(std::string(kelda_error_message()).find("transaction"), std::string::npos);
  // From another thread: one that holds a lock itself must give up; one that holds nothing waits as long as it may.
  std::thread([&] {
    EXPECT_EQ(put(two, "c", "1"), KELDA_OK);
    EXPECT_EQ(kelda_scan_open(two, tree_, "", 0, &scan), KELDA_CONFLICT);
    EXPECT_EQ(kelda_roll_back(two), KELDA_OK);
    kelda_transaction* three = begin(db);
    EXPECT_EQ(kelda_set_lock_timeout(three, 20'000), KELDA_OK);
    EXPECT_EQ(put(three, "a", "3"), KELDA_LOCK_TIMEOUT);
    EXPECT_NE(std::string(kelda_error_message()).find("20 ms"), std::string::npos) << kelda_error_message();
    EXPECT_EQ(kelda_roll_back(three), KELDA_OK);
  }).join();
  EXPECT_EQ(kelda_commit(one), KELDA_OK);
  EXPECT_EQ(kelda_close(db), KELDA_OK);
}

TEST_F(CApi, HandlesThatAreNone) {
  const void *key, *value;
  std::size_t key_bytes, value_bytes;
  const auto no_transaction = [&](kelda_transaction* txn) {
    kelda_scan* scan = nullptr;
    EXPECT_EQ(kelda_commit(txn), KELDA_INVALID_ARGUMENT);
    EXPECT_EQ(kelda_roll_back(txn), KELDA_INVALID_ARGUMENT);
    EXPECT_EQ(kelda_set_lock_timeout(txn, 1), KELDA_INVALID_ARGUMENT);
    EXPECT_EQ(kelda_get(txn, tree_, "a", 1, &value, &value_bytes), KELDA_INVALID_ARGUMENT);
    EXPECT_EQ(kelda_put(txn, tree_, "a", 1, "1", 1), KELDA_INVALID_ARGUMENT);
    EXPECT_EQ(kelda_remove(txn, tree_, "a", 1), KELDA_INVALID_ARGUMENT);
    EXPECT_EQ(kelda_scan_open(txn, tree_, "", 0, &scan), KELDA_INVALID_ARGUMENT);
    EXPECT_NE(std::string(kelda_error_message()).find("no open transaction"), std::string::npos) << kelda_error_message();
  };
  const auto no_scan = [&](kelda_scan* scan) {
    EXPECT_EQ(kelda_scan_next(scan), KELDA_INVALID_ARGUMENT);
    EXPECT_EQ(kelda_scan_current(scan, &key, &key_bytes, &value, &value_bytes), KELDA_INVALID_ARGUMENT);
    EXPECT_EQ(kelda_scan_close(scan), KELDA_INVALID_ARGUMENT);
  };
  const auto no_database = [&](kelda_database* db) {
    kelda_transaction* txn = nullptr;
    kelda_tree tree;
    EXPECT_EQ(kelda_begin(db, &txn), KELDA_INVALID_ARGUMENT);
    EXPECT_EQ(txn, nullptr);
    EXPECT_EQ(kelda_open_tree(db, "t", 1, &tree), KELDA_INVALID_ARGUMENT);
    EXPECT_EQ(kelda_close(db), KELDA_INVALID_ARGUMENT);
    EXPECT_NE(std::string(kelda_error_message()).find("no open database"), std::string::npos) << kelda_error_message();
  };
  int stray = 0;
  no_transaction(nullptr);
  no_transaction(reinterpret_cast<kelda_transaction*>(&stray));
  no_scan(nullptr);
  no_scan(reinterpret_cast<kelda_scan*>(&stray));
  no_database(nullptr);
  no_database(reinterpret_cast<kelda_database*>(&stray));
  no_database(reinterpret_cast<kelda_database*>(~std::uintptr_t{0}));

  kelda_database* db = must_open();
  put_and_commit(db, 3);
  kelda_transaction* txn = begin(db);
  kelda_scan* scan = nullptr;
  ASSERT_EQ(kelda_scan_open(txn, tree_, "", 0, &scan), KELDA_OK);
  no_transaction(reinterpret_cast<kelda_transaction*>(db));
  no_database(reinterpret_cast<kelda_database*>(txn));
  EXPECT_EQ(kelda_close(db), KELDA_BUSY);
  EXPECT_EQ(put(txn, "a", "1"), KELDA_OK) << "a close that was refused leaves the database open";
  EXPECT_EQ(kelda_commit(txn), KELDA_OK);
  no_transaction(txn);
  kelda_transaction* next = begin(db);
  EXPECT_NE(next, txn) << "it may have the other's memory, not its name";
  no_transaction(txn);
  EXPECT_EQ(kelda_roll_back(next), KELDA_OK);
  EXPECT_EQ(kelda_scan_next(scan), KELDA_INVALID_ARGUMENT) << "its transaction is over";
  EXPECT_EQ(kelda_scan_current(scan, &key, &key_bytes, &value, &value_bytes), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_close(db), KELDA_OK) << kelda_error_message();
  no_database(db);
  no_transaction(txn);
  EXPECT_EQ(kelda_scan_close(scan), KELDA_OK);
  no_scan(scan);
}

TEST_F(CApi, ArgumentsThatAreNone) {
  const void *key, *value;
  std::size_t key_bytes, value_bytes;
  kelda_database* db = nullptr;
  EXPECT_EQ(kelda_open(nullptr, nullptr, &db), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_open("", nullptr, &db), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_open(path_.c_str(), nullptr, nullptr), KELDA_INVALID_ARGUMENT);
  const kelda_options absurd{.memory_bytes = ~std::uint64_t{0}, .create_bytes = ~std::uint64_t{0}, .durability_none = 0, .lock_timeout_us = 0};
  EXPECT_NE(kelda_open((folder_ + "/absurd").c_str(), &absurd, &db), KELDA_OK);
  EXPECT_EQ(db, nullptr);
  db = must_open();
  kelda_tree tree;
  EXPECT_EQ(kelda_open_tree(db, nullptr, 1, &tree), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_open_tree(db, "t", 1, nullptr), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_begin(db, nullptr), KELDA_INVALID_ARGUMENT);
  kelda_transaction* txn = begin(db);
  kelda_scan* scan = nullptr;
  for (const std::size_t absurd_bytes : {~std::size_t{0}, ~std::size_t{0} >> 1, std::size_t{1} << 32, std::size_t{1} << 20}) {
    EXPECT_EQ(kelda_get(txn, tree_, "a", absurd_bytes, &value, &value_bytes), KELDA_TOO_LARGE);
    EXPECT_EQ(kelda_put(txn, tree_, "a", absurd_bytes, "1", 1), KELDA_TOO_LARGE);
    EXPECT_EQ(kelda_put(txn, tree_, "a", 1, "1", absurd_bytes + 1 == 0 ? absurd_bytes : absurd_bytes + 1), KELDA_TOO_LARGE);
    EXPECT_EQ(kelda_remove(txn, tree_, "a", absurd_bytes), KELDA_TOO_LARGE);
    EXPECT_EQ(kelda_scan_open(txn, tree_, "a", absurd_bytes, &scan), KELDA_TOO_LARGE);
    EXPECT_EQ(scan, nullptr);
  }
  EXPECT_EQ(kelda_get(txn, tree_, nullptr, 1, &value, &value_bytes), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_get(txn, tree_, "a", 1, nullptr, &value_bytes), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_get(txn, tree_, "a", 1, &value, nullptr), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_put(txn, tree_, nullptr, 1, "1", 1), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_put(txn, tree_, nullptr, 0, "1", 1), KELDA_INVALID_ARGUMENT) << "an empty key";
  EXPECT_EQ(kelda_put(txn, tree_, "a", 1, nullptr, 1), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_put(txn, tree_, "a", 1, nullptr, 0), KELDA_OK) << "an empty value";
  EXPECT_EQ(kelda_remove(txn, tree_, nullptr, 1), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_scan_open(txn, tree_, nullptr, 1, &scan), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_scan_open(txn, tree_, "", 0, nullptr), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_get(txn, kelda_tree{}, "a", 1, &value, &value_bytes), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_put(txn, kelda_tree{}, "a", 1, "1", 1), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_remove(txn, kelda_tree{}, "a", 1), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_scan_open(txn, kelda_tree{}, "", 0, &scan), KELDA_INVALID_ARGUMENT);
  ASSERT_EQ(kelda_scan_open(txn, tree_, nullptr, 0, &scan), KELDA_OK) << kelda_error_message();
  EXPECT_EQ(kelda_scan_current(scan, nullptr, &key_bytes, &value, &value_bytes), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_scan_current(scan, &key, nullptr, &value, &value_bytes), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_scan_current(scan, &key, &key_bytes, nullptr, &value_bytes), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_scan_current(scan, &key, &key_bytes, &value, nullptr), KELDA_INVALID_ARGUMENT);
  EXPECT_EQ(kelda_scan_next(scan), KELDA_NOT_FOUND);
  EXPECT_EQ(kelda_scan_next(scan), KELDA_NOT_FOUND) << "past the end";
  EXPECT_EQ(kelda_scan_current(scan, &key, &key_bytes, &value, &value_bytes), KELDA_NOT_FOUND);
  EXPECT_EQ(kelda_scan_close(scan), KELDA_OK);
  EXPECT_EQ(kelda_commit(txn), KELDA_OK);
  EXPECT_EQ(kelda_close(db), KELDA_OK) << kelda_error_message();
}

TEST_F(CApi, TheDiskIsFull) {
  kelda_database* db = must_open();
  kelda_code code = KELDA_OK;
  for (int i = 0; i < 4000 && code == KELDA_OK; ++i) {
    kelda_transaction* txn = begin(db);
    code = put(txn, "key" + std::to_string(i), std::string(30'000, 'v'));
    const kelda_code ended = code == KELDA_OK ? kelda_commit(txn) : kelda_roll_back(txn);
    EXPECT_EQ(ended, KELDA_OK) << kelda_error_message();
  }
  EXPECT_EQ(code, KELDA_NO_SPACE) << kelda_error_message();
  kelda_transaction* txn = begin(db);
  EXPECT_EQ(get(txn, "key0"), KELDA_OK);
  EXPECT_EQ(kelda_remove(txn, tree_, "key0", 4), KELDA_OK);
  EXPECT_EQ(kelda_commit(txn), KELDA_OK);
  EXPECT_EQ(kelda_close(db), KELDA_OK);
}

// Pages of values are broken, then the file ends before them: the leaf tells that they are there.
TEST_F(CApi, PagesThatAreDamagedAndGone) {
  kelda_database* db = must_open();
  put_and_commit(db, 300);
  EXPECT_EQ(kelda_close(db), KELDA_OK);
  const auto bytes = std::filesystem::file_size(path_);
  {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    std::string page(4096, '\0');
    for (std::uint64_t at = 0; at < bytes; at += 4096) {
      file.seekg(static_cast<std::streamoff>(at));
      file.read(page.data(), 4096);
      if (page.find(std::string(100, 'v')) == std::string::npos) continue;
      file.seekp(static_cast<std::streamoff>(at + 2000));
      file.write("damage", 6);
    }
  }
  db = must_open();
  kelda_transaction* txn = begin(db);
  EXPECT_EQ(get(txn, "key7"), KELDA_CORRUPT);
  kelda_scan* scan = nullptr;
  ASSERT_EQ(kelda_scan_open(txn, tree_, "", 0, &scan), KELDA_OK);
  const void *key, *value;
  std::size_t key_bytes, value_bytes;
  EXPECT_EQ(kelda_scan_current(scan, &key, &key_bytes, &value, &value_bytes), KELDA_CORRUPT);
  kelda_scan_close(scan);
  std::filesystem::resize_file(path_, 1_MiB);
  EXPECT_EQ(get(txn, "key7"), KELDA_IO);
  std::filesystem::resize_file(path_, bytes);
  EXPECT_EQ(kelda_roll_back(txn), KELDA_OK);
  EXPECT_EQ(kelda_close(db), KELDA_OK) << kelda_error_message();
}

TEST_F(CApi, TheEngineStoppedAcknowledging) {
  kelda_database* db = must_open();
  kelda_transaction* txn = begin(db);
  EXPECT_EQ(put(txn, "a", "1"), KELDA_OK);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_IGN);
  const rlimit none{4096, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &none), 0);
  EXPECT_EQ(kelda_commit(txn), KELDA_FAILED);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_DFL);
  EXPECT_NE(std::string(kelda_error_message()).find("restart"), std::string::npos) << kelda_error_message();
  EXPECT_EQ(kelda_close(db), KELDA_FAILED);
  db = must_open();
  EXPECT_EQ(kelda_close(db), KELDA_OK);
}

}  // namespace
}  // namespace kelda
