// include/kelda/kelda_c.h over include/kelda/kelda.h.
#include <memory>
#include <string>

#include "kelda/kelda.h"
#include "kelda/kelda_c.h"

struct kelda_database {
  std::unique_ptr<kelda::Database> db;
};
struct kelda_transaction {
  std::unique_ptr<kelda::Transaction> txn;
  std::string value;
};
struct kelda_scan {
  std::unique_ptr<kelda::Scan> scan;
};

namespace {

thread_local std::string last_message;

kelda_code report(const kelda::Error& error) {
  last_message = error.to_string();
  switch (error.code()) {
    case kelda::Code::kNotFound: return KELDA_NOT_FOUND;
    case kelda::Code::kConflict: return KELDA_CONFLICT;
    case kelda::Code::kInvalidArgument: return KELDA_INVALID_ARGUMENT;
    case kelda::Code::kTooLarge: return KELDA_TOO_LARGE;
    case kelda::Code::kNoSpace: return KELDA_NO_SPACE;
    case kelda::Code::kBusy: return KELDA_BUSY;
    case kelda::Code::kCorrupt: return KELDA_CORRUPT;
    case kelda::Code::kIo: return KELDA_IO;
    case kelda::Code::kFailed: return KELDA_FAILED;
    default: return KELDA_OTHER;
  }
}

template <class T>
kelda_code code_of(const kelda::Result<T>& result) {
  return result ? KELDA_OK : report(result.error());
}

// For calls whose value says whether there was something.
kelda_code found(const kelda::Result<bool>& result) {
  if (!result) return report(result.error());
  if (*result) return KELDA_OK;
  last_message = "not found";
  return KELDA_NOT_FOUND;
}

std::string_view view(const void* data, size_t bytes) { return {static_cast<const char*>(data), bytes}; }
kelda::Tree tree_of(kelda_tree tree) { return {kelda::TreeId{tree.id}, tree.entry}; }

}  // namespace

extern "C" {

const char* kelda_error_message(void) { return last_message.c_str(); }

kelda_code kelda_open(const char* device_name, const kelda_options* options, kelda_database** database) {
  kelda::DatabaseOptions db_options;
  std::uint64_t create_bytes = 0;
  if (options != nullptr) {
    if (options->memory_bytes != 0) db_options.memory_bytes = options->memory_bytes;
    if (options->durability_none != 0) db_options.durability = kelda::DurabilityMode::kNone;
    create_bytes = options->create_bytes;
    db_options.create_if_blank = create_bytes != 0;
  }
  auto opened = kelda::Database::open(device_name, create_bytes, db_options);
  if (!opened) return report(opened.error());
  *database = new kelda_database{std::move(*opened)};
  return KELDA_OK;
}

kelda_code kelda_close(kelda_database* database) {
  const std::unique_ptr<kelda_database> owned(database);
  return code_of(owned->db->close());
}

kelda_code kelda_open_tree(kelda_database* database, const char* name, int create, kelda_tree* tree) {
  const auto opened = database->db->tree(name, create != 0);
  if (!opened) return report(opened.error());
  *tree = {opened->id().value, opened->entry()};
  return KELDA_OK;
}

kelda_code kelda_begin(kelda_database* database, kelda_transaction** transaction) {
  *transaction = new kelda_transaction{database->db->begin(), {}};
  return KELDA_OK;
}

kelda_code kelda_commit(kelda_transaction* transaction) {
  const std::unique_ptr<kelda_transaction> owned(transaction);
  return code_of(owned->txn->commit());
}

kelda_code kelda_roll_back(kelda_transaction* transaction) {
  const std::unique_ptr<kelda_transaction> owned(transaction);
  return code_of(owned->txn->roll_back());
}

kelda_code kelda_get(kelda_transaction* transaction, kelda_tree tree, const void* key, size_t key_bytes, const void** value,
                     size_t* value_bytes) {
  const kelda_code code = found(transaction->txn->get(tree_of(tree), view(key, key_bytes), transaction->value));
  if (code != KELDA_OK) return code;
  *value = transaction->value.data();
  *value_bytes = transaction->value.size();
  return KELDA_OK;
}

kelda_code kelda_put(kelda_transaction* transaction, kelda_tree tree, const void* key, size_t key_bytes, const void* value,
                     size_t value_bytes) {
  return code_of(transaction->txn->put(tree_of(tree), view(key, key_bytes), view(value, value_bytes)));
}

kelda_code kelda_remove(kelda_transaction* transaction, kelda_tree tree, const void* key, size_t key_bytes) {
  return found(transaction->txn->remove(tree_of(tree), view(key, key_bytes)));
}

kelda_code kelda_scan_open(kelda_transaction* transaction, kelda_tree tree, const void* key, size_t key_bytes, kelda_scan** scan) {
  auto opened = transaction->txn->scan(tree_of(tree));
  if (!opened) return report(opened.error());
  const kelda_code code = found((*opened)->seek(view(key, key_bytes)));
  if (code == KELDA_OK) *scan = new kelda_scan{std::move(*opened)};
  return code;
}

kelda_code kelda_scan_next(kelda_scan* scan) { return found(scan->scan->next()); }

kelda_code kelda_scan_current(kelda_scan* scan, const void** key, size_t* key_bytes, const void** value, size_t* value_bytes) {
  const std::string_view k = scan->scan->key();
  const auto v = scan->scan->value();
  if (!v) return report(v.error());
  *key = k.data();
  *key_bytes = k.size();
  *value = v->data();
  *value_bytes = v->size();
  return KELDA_OK;
}

void kelda_scan_close(kelda_scan* scan) { delete scan; }

}  // extern "C"
