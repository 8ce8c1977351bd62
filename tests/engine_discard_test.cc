// What a dropped tree leaves on the device: nothing, soon.
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "engine_support.h"
#include "runtime/platform_bare.h"

namespace kelda::engine {
namespace {

constexpr int kKeys = 6000;

Result<> fill(Database& db, const std::string& name, char with) {
  const Tree tree = TRY(db.tree(name, true));
  for (int i = 0; i < kKeys; i += 500) {
    auto txn = db.begin();
    for (int k = i; k < i + 500; ++k) TRY(txn->put(tree, "key" + std::to_string(k), std::string(3000, with)));
    TRY(txn->commit());
  }
  return {};
}

// Of the database's own accord: nobody asks for a checkpoint.
template <class Done>
bool comes_true(Done done) {
  for (int i = 0; i < 300 && !done(); ++i) runtime::Core::current().sleep_until(runtime::now_ns() + 50'000'000);
  return done();
}

TEST(EngineDiscard, ADroppedTreeGoesBackToTheDeviceByItself) {
  on_cores(1, [](runtime::Runtime&) {
    auto open = open_on(blank_disk(128_MiB));
    ASSERT_OK(open);
    Database& db = *open->db;
    ASSERT_OK(fill(db, "kept", 'k'));
    ASSERT_OK(fill(db, "gone", 'g'));
    ASSERT_OK(db.checkpoint());
    const std::uint64_t before = open->disk->stats().discards;
    ASSERT_OK(db.drop_tree("gone"));
    EXPECT_TRUE(comes_true([&] { return open->disk->stats().discards > before; }));
    auto again = open_on(open->disk->crash(blockdev::Survival::kNone));
    ASSERT_OK(again);
    std::string value;
    for (int i = 0; i < kKeys; i += 7) {
      ASSERT_TRUE(*again->db->get(*again->db->tree("kept", false), "key" + std::to_string(i), value)) << i;
      ASSERT_EQ(value, std::string(3000, 'k'));
    }
    EXPECT_FALSE(again->db->tree("gone", false).has_value());
  });
}

TEST(EngineDiscard, ASparseFileShrinks) {
  if (runtime::is_bare()) GTEST_SKIP() << "there are no files";
  std::string folder = std::filesystem::temp_directory_path() / "kelda-discard-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/disk";
  const auto blocks = [&] {
    struct stat found{};
    EXPECT_EQ(stat(path.c_str(), &found), 0);
    return static_cast<std::uint64_t>(found.st_blocks) * 512;
  };
  std::uint64_t full = 0, after = 0;
  bool can_discard = false;
  on_cores(1, [&](runtime::Runtime&) {
    DatabaseOptions options = small_options();
    auto db = Database::open(path, 256_MiB, options);
    ASSERT_OK(db);
    can_discard = (*db)->device().info().has_discard;
    ASSERT_OK(fill(**db, "gone", 'g'));
    ASSERT_OK((*db)->checkpoint());
    full = blocks();
    ASSERT_OK((*db)->drop_tree("gone"));
    if (can_discard) comes_true([&] { return blocks() + 10_MiB < full; });
    ASSERT_OK((*db)->close());
    after = blocks();
  });
  std::filesystem::remove_all(folder);
  if (!can_discard) GTEST_SKIP() << "the folder for temporary files cannot punch holes";
  EXPECT_LT(after + 10_MiB, full);
}

}  // namespace
}  // namespace kelda::engine
