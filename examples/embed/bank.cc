// Embedding Kelda: transfers between accounts, each a transaction, durable when commit() returns.
//
//   make lib
//   g++ examples/embed/bank.cc $(PKG_CONFIG_PATH=build-lib pkg-config --cflags --libs kelda) -o bank && ./bank bank.disk
#include <kelda/kelda.h>

#include <cstdio>
#include <string>

using namespace kelda;

namespace {

Result<> transfer(Database& db, Tree accounts, std::string_view from, std::string_view to, long amount) {
  for (;;) {
    auto txn = db.begin();
    const auto attempt = [&]() -> Result<> {
      std::string balance;
      if (!TRY(txn->get_for_update(accounts, from, balance))) return Error(Code::kNotFound, "no account " + std::string(from));
      if (std::stol(balance) < amount) return Error(Code::kInvalidArgument, std::string(from) + " has only " + balance);
      TRY(txn->put(accounts, from, std::to_string(std::stol(balance) - amount)));
      if (!TRY(txn->get_for_update(accounts, to, balance))) balance = "0";
      TRY(txn->put(accounts, to, std::to_string(std::stol(balance) + amount)));
      return txn->commit();
    };
    Result<> done = attempt();
    if (!done.failed_with(Code::kConflict)) return done;  // an open transaction rolls back when it goes
  }
}

// One that is refused is no failure of the program.
Result<> try_transfer(Database& db, Tree accounts, std::string_view from, std::string_view to, long amount) {
  Result<> done = transfer(db, accounts, from, to, amount);
  if (!done.failed_with(Code::kInvalidArgument)) return done;
  std::printf("refused: %s\n", done.error().to_string().c_str());
  return {};
}

// Only a new one gets money: the program may run again on the same disk.
Result<> open_account(Database& db, Tree accounts, std::string_view name, long balance) {
  auto txn = db.begin();
  TRY(txn->put(accounts, name, std::to_string(balance), PutIf::kAbsent));  // false, and nothing changed, if it is there
  return txn->commit();
}

Result<> run(const char* disk) {
  auto db = TRY(Database::open(disk, 64 << 20, {.memory_bytes = 32 << 20, .create_if_blank = true}));
  const Tree accounts = TRY(db->tree("accounts", true));
  TRY(open_account(*db, accounts, "alice", 100));
  TRY(try_transfer(*db, accounts, "alice", "bob", 30));
  TRY(try_transfer(*db, accounts, "bob", "carol", 1000));
  auto txn = db->begin();
  auto scan = TRY(txn->scan(accounts));
  for (bool more = TRY(scan->seek("")); more; more = TRY(scan->next())) {
    const std::string name(scan->key());
    std::printf("%s %s\n", name.c_str(), std::string(TRY(scan->value())).c_str());
  }
  scan.reset();
  TRY(txn->commit());
  return db->close();
}

}  // namespace

int main(int argc, char** argv) {
  const Result<> done = run(argc > 1 ? argv[1] : "bank.disk");
  if (done) return 0;
  std::fprintf(stderr, "bank: %s\n", done.error().to_string().c_str());
  return 1;
}
