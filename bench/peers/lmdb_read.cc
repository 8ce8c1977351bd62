// LMDB beside `kelda bench kv`: the same keys, the same values, point reads on one thread.
//
// usage: lmdb_read RECORDS VALUE_BYTES SECONDS [TRANSACTION_READS]
// Reads run inside read transactions of TRANSACTION_READS reads each (default 1: a transaction a read, with mdb_txn_renew, as
// an application without a snapshot to keep would do; 0: one transaction for all). Prints one line of JSON.
#include <lmdb.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "tools/key_generator.h"

namespace {

void must(int code, const char* what) {
  if (code == 0) return;
  std::fprintf(stderr, "lmdb_read: %s: %s\n", what, mdb_strerror(code));
  std::exit(1);
}

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void load(MDB_env* env, MDB_dbi& dbi, unsigned long long records, unsigned value_bytes) {
  MDB_txn* txn;
  must(mdb_txn_begin(env, nullptr, 0, &txn), "begin");
  must(mdb_dbi_open(txn, nullptr, 0, &dbi), "open");
  std::string key, value(value_bytes, 'v');
  for (unsigned long long i = 0; i < records; ++i) {
    kelda::tools::make_key(i, key);
    MDB_val k{key.size(), key.data()}, v{value.size(), value.data()};
    must(mdb_put(txn, dbi, &k, &v, 0), "put");
  }
  must(mdb_txn_commit(txn), "commit");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: lmdb_read RECORDS VALUE_BYTES SECONDS [TRANSACTION_READS]\n");
    return 2;
  }
  const unsigned long long records = std::strtoull(argv[1], nullptr, 10);
  const auto value_bytes = static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10));
  const double seconds = std::strtod(argv[3], nullptr);
  const unsigned long long txn_reads = argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 1;

  const char* parent = std::getenv("TMPDIR");
  std::string folder = std::string(parent != nullptr ? parent : "/tmp") + "/kelda-lmdb-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) {
    std::perror(("lmdb_read: " + folder).c_str());
    return 1;
  }
  MDB_env* env;
  must(mdb_env_create(&env), "create");
  must(mdb_env_set_mapsize(env, std::size_t{4} << 30), "map size");
  must(mdb_env_open(env, folder.c_str(), MDB_NOSYNC, 0600), "env");
  MDB_dbi dbi;
  load(env, dbi, records, value_bytes);

  kelda::tools::KeyChooser chooser(records, 0);
  kelda::tools::Random random(0x5eed);
  MDB_txn* txn;
  must(mdb_txn_begin(env, nullptr, MDB_RDONLY, &txn), "begin");
  std::string key, value;
  unsigned long long reads = 0, in_txn = 0;
  const double start = now_s(), end = start + seconds;
  while ((reads & 255) != 0 || now_s() < end) {
    if (txn_reads != 0 && in_txn++ == txn_reads) {
      mdb_txn_reset(txn);
      must(mdb_txn_renew(txn), "renew");
      in_txn = 1;
    }
    kelda::tools::make_key(chooser.next(random), key);
    MDB_val k{key.size(), key.data()}, v;
    must(mdb_get(txn, dbi, &k, &v), "get");
    value.assign(static_cast<const char*>(v.mv_data), v.mv_size);  // as the other side copies it out
    ++reads;
  }
  const double took = now_s() - start;
  mdb_txn_abort(txn);
  mdb_env_close(env);
  std::filesystem::remove_all(folder);
  std::printf("{\"engine\":\"lmdb\",\"records\":%llu,\"value_bytes\":%u,\"transaction_reads\":%llu,\"operations_per_s\":%.0f}\n",
              records, value_bytes, txn_reads, static_cast<double>(reads) / took);
  return 0;
}
