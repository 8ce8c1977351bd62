// What a program does wrong with the C++ interface is answered with an error.
#include "engine_support.h"

namespace kelda::engine {
namespace {

template <class T>
void expect_code(Code code, const Result<T>& result, const char* call, const char* text) {
  ASSERT_FALSE(result.has_value()) << call;
  EXPECT_EQ(result.error().code(), code) << call << ": " << result.error().to_string();
  EXPECT_NE(result.error().to_string().find(text), std::string::npos) << call << ": " << result.error().to_string();
}

void expect_all(Code code, Database& db, Tree tree, const char* text) {
  std::string value;
  const std::string_view keys[] = {"a"};
  expect_code(code, db.get(tree, "a", value), "get", text);
  expect_code(code, db.put(tree, "a", "1"), "put", text);
  expect_code(code, db.remove(tree, "a"), "remove", text);
  auto txn = db.begin();
  expect_code(code, txn->get(tree, "a", value), "txn get", text);
  expect_code(code, txn->get_for_update(tree, "a", value), "txn get_for_update", text);
  expect_code(code, txn->put(tree, "a", "1"), "txn put", text);
  expect_code(code, txn->remove(tree, "a"), "txn remove", text);
  expect_code(code, txn->lock_keys(tree, keys), "lock_keys", text);
  expect_code(code, txn->lock_tree(tree, true), "lock_tree", text);
  expect_code(code, txn->scan(tree), "scan", text);
  expect_code(code, txn->clear(tree), "clear", text);
}

TEST(Misuse, ATreeOfAnotherDatabaseOrNone) {
  on_cores(1, [](runtime::Runtime&) {  // two backgrounds would take two more CPUs from a plain thread
    auto a = open_on(blank_disk()), b = open_on(blank_disk());
    ASSERT_OK(a);
    ASSERT_OK(b);
    const Tree of_a = *a->db->tree("t", true), of_b = *b->db->tree("t", true);
    EXPECT_EQ(of_a.id(), of_b.id()) << "the same number in both";
    ASSERT_OK(a->db->put(of_a, "a", "a's"));
    ASSERT_OK(b->db->put(of_b, "a", "b's"));
    expect_all(Code::kInvalidArgument, *b->db, of_a, "another database");
    expect_all(Code::kInvalidArgument, *a->db, Tree{}, "empty");
    EXPECT_EQ(b->db->count(of_a), 0u);
    EXPECT_EQ(b->db->count(Tree{}), 0u);
    std::string value;
    EXPECT_TRUE(*b->db->get(of_b, "a", value));
    EXPECT_EQ(value, "b's");
    EXPECT_OK(a->db->close());
    EXPECT_OK(b->db->close());
  });
}

TEST(Misuse, ADatabaseThatWasClosed) {
  auto opened = open_on(blank_disk());
  ASSERT_OK(opened);
  Database& db = *opened->db;
  const Tree tree = *db.tree("t", true);
  auto txn = db.begin();
  ASSERT_OK(txn->put(tree, "a", "1"));
  expect_code(Code::kBusy, db.close(), "close", "open");
  ASSERT_OK(txn->commit());
  EXPECT_OK(db.close());
  expect_all(Code::kClosed, db, tree, "closed");
  expect_code(Code::kClosed, db.tree("t", false), "tree", "closed");
  expect_code(Code::kClosed, db.tree("new", true), "tree", "closed");
  expect_code(Code::kClosed, db.tree_names(), "tree_names", "closed");
  expect_code(Code::kClosed, db.drop_tree("t"), "drop_tree", "closed");
  expect_code(Code::kClosed, db.checkpoint(), "checkpoint", "closed");
  expect_code(Code::kClosed, db.begin()->commit(), "commit", "closed");
  expect_code(Code::kClosed, db.start_scrub(), "start_scrub", "closed");
  EXPECT_OK(db.close());
}

TEST(Misuse, ATransactionThatIsOver) {
  auto opened = open_on(blank_disk());
  ASSERT_OK(opened);
  Database& db = *opened->db;
  const Tree tree = *db.tree("t", true);
  ASSERT_OK(db.put(tree, "a", "1"));
  for (const bool commits : {true, false}) {
    auto txn = db.begin();
    auto scan = txn->scan(tree);
    ASSERT_OK(scan);
    EXPECT_TRUE(*(*scan)->seek(""));
    ASSERT_OK(commits ? txn->commit() : txn->roll_back());
    std::string value;
    const std::string_view keys[] = {"a"};
    expect_code(Code::kAborted, txn->get(tree, "a", value), "get", "over");
    expect_code(Code::kAborted, txn->get_for_update(tree, "a", value), "get_for_update", "over");
    expect_code(Code::kAborted, txn->put(tree, "a", "1"), "put", "over");
    expect_code(Code::kAborted, txn->remove(tree, "a"), "remove", "over");
    expect_code(Code::kAborted, txn->lock_keys(tree, keys), "lock_keys", "over");
    expect_code(Code::kAborted, txn->lock_tree(tree, true), "lock_tree", "over");
    expect_code(Code::kAborted, txn->scan(tree), "scan", "over");
    expect_code(Code::kAborted, txn->clear(tree), "clear", "over");
    expect_code(Code::kAborted, txn->savepoint(), "savepoint", "over");
    expect_code(Code::kAborted, txn->roll_back_to(0), "roll_back_to", "over");
    expect_code(Code::kAborted, txn->commit(), "commit", "over");
    expect_code(Code::kAborted, txn->roll_back(), "roll_back", "over");
    expect_code(Code::kAborted, (*scan)->next(), "next", "over");
    expect_code(Code::kAborted, (*scan)->prev(), "prev", "over");
    expect_code(Code::kAborted, (*scan)->seek("a"), "seek", "over");
    expect_code(Code::kAborted, (*scan)->seek_back("a"), "seek_back", "over");
    expect_code(Code::kAborted, (*scan)->value(), "value", "over");
    txn.reset();
    expect_code(Code::kAborted, (*scan)->next(), "next", "over");
  }
  EXPECT_OK(db.close());
}

// The program's own order of destructors is often the wrong one.
TEST(Misuse, ADatabaseThatGoesBeforeItsTransactionsAndScans) {
  auto opened = open_on(blank_disk());
  ASSERT_OK(opened);
  const Tree tree = *opened->db->tree("t", true);
  ASSERT_OK(opened->db->put(tree, "a", "1"));
  auto txn = opened->db->begin(), emptied = opened->db->begin();
  auto scan = txn->scan(tree);
  ASSERT_OK(scan);
  EXPECT_TRUE(*(*scan)->seek(""));
  const Tree other = *opened->db->tree("other", true);
  ASSERT_OK(emptied->put(other, "b", "1"));
  auto disk = opened->disk->crash(blockdev::Survival::kAll);
  opened->db.reset();
  std::string value;
  expect_code(Code::kClosed, txn->get(tree, "a", value), "get", "closed");
  expect_code(Code::kClosed, txn->commit(), "commit", "closed");
  expect_code(Code::kClosed, (*scan)->next(), "next", "closed");
  expect_code(Code::kClosed, (*scan)->value(), "value", "closed");
  expect_code(Code::kClosed, emptied->commit(), "commit", "closed");
  txn.reset();
  scan->reset();
  emptied.reset();
  auto again = open_on(std::move(disk));
  ASSERT_OK(again);
  EXPECT_TRUE(*again->db->get(*again->db->tree("t", false), "a", value));
  EXPECT_FALSE(*again->db->get(*again->db->tree("other", false), "b", value));
  EXPECT_OK(again->db->close());
}

TEST(Misuse, KeysValuesNamesAndScansThatAreWrong) {
  auto opened = open_on(blank_disk());
  ASSERT_OK(opened);
  Database& db = *opened->db;
  const Tree tree = *db.tree("t", true);
  const std::string long_key(1025, 'k'), long_value((1 << 20) + 1, 'v');
  std::string value;
  expect_code(Code::kTooLarge, db.get(tree, long_key, value), "get", "1024");
  expect_code(Code::kTooLarge, db.put(tree, long_key, "1"), "put", "1024");
  expect_code(Code::kTooLarge, db.put(tree, "a", long_value), "put", "value");
  expect_code(Code::kInvalidArgument, db.put(tree, "", "1"), "put", "key");
  expect_code(Code::kTooLarge, db.remove(tree, long_key), "remove", "1024");
  expect_code(Code::kInvalidArgument, db.tree("", true), "tree", "name");
  expect_code(Code::kInvalidArgument, db.tree(std::string(256, 'n'), true), "tree", "name");
  expect_code(Code::kNotFound, db.drop_tree("none"), "drop_tree", "none");
  {
    auto txn = db.begin();
    const std::string_view keys[] = {long_key};
    expect_code(Code::kTooLarge, txn->lock_keys(tree, keys), "lock_keys", "1024");
    expect_code(Code::kInvalidArgument, txn->roll_back_to(3), "roll_back_to", "savepoint");
    auto scan = txn->scan(tree);
    ASSERT_OK(scan);
    EXPECT_FALSE(*(*scan)->next()) << "never sought";
    EXPECT_TRUE((*scan)->key().empty());
    expect_code(Code::kNotFound, (*scan)->value(), "value", "seek");
    EXPECT_FALSE(*(*scan)->seek(long_key));
    EXPECT_FALSE(*(*scan)->prev());
  }
  EXPECT_OK(db.close());
  expect_code(Code::kInvalidArgument, Database::open(nullptr, small_options()), "open", "device");
}

// A scan over a tree that its transaction made by emptying it, after that was undone.
TEST(Misuse, AScanOfATreeThatASavepointUndid) {
  auto opened = open_on(blank_disk());
  ASSERT_OK(opened);
  const Tree tree = *opened->db->tree("t", true);
  auto txn = opened->db->begin();
  const auto savepoint = txn->savepoint();
  ASSERT_OK(txn->clear(tree));
  ASSERT_OK(txn->put(tree, "a", "1"));
  auto scan = txn->scan(tree);
  ASSERT_OK(scan);
  EXPECT_TRUE(*(*scan)->seek(""));
  ASSERT_OK(txn->roll_back_to(*savepoint));
  expect_code(Code::kAborted, (*scan)->next(), "next", "savepoint");
  auto fresh = txn->scan(tree);
  ASSERT_OK(fresh);
  EXPECT_FALSE(*(*fresh)->seek(""));
  ASSERT_OK(txn->commit());
  EXPECT_OK(opened->db->close());
}

}  // namespace
}  // namespace kelda::engine
