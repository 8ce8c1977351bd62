// include/kelda/kelda_c.h over include/kelda/kelda.h.
//
// Contract: nothing that a caller passes may crash, and no exception leaves: each function runs in guarded(). What a pointer of
// the interface stands for is looked up (c_handles.h).
#include <exception>
#include <memory>
#include <new>
#include <string>

#include "btree/btree.h"
#include "engine/c_handles.h"
#include "kelda/kelda.h"
#include "kelda/kelda_c.h"

namespace {

using kelda::Code;
using kelda::Error;
using kelda::Result;

struct OpenDatabase {
  std::unique_ptr<kelda::Database> db;
};
struct OpenTransaction {
  std::unique_ptr<kelda::Transaction> txn;
  std::string value;
};
struct OpenScan {
  std::unique_ptr<kelda::Scan> scan;
};

constinit thread_local const char* fixed_message = nullptr;  // instead of last_message: needs no memory
thread_local std::string last_message;

// Never destroyed: a program may call at its very end.
auto& databases() {
  static auto& handles = *new kelda::engine::Handles<OpenDatabase>(1);
  return handles;
}
auto& transactions() {
  static auto& handles = *new kelda::engine::Handles<OpenTransaction>(2);
  return handles;
}
auto& scans() {
  static auto& handles = *new kelda::engine::Handles<OpenScan>(3);
  return handles;
}

kelda_code fail(kelda_code code, const char* message) {
  fixed_message = message;
  return code;
}

kelda_code invalid(const char* message) { return fail(KELDA_INVALID_ARGUMENT, message); }

kelda_code code_of(Code code) {
  switch (code) {
    case Code::kNotFound: return KELDA_NOT_FOUND;
    case Code::kConflict: return KELDA_CONFLICT;
    case Code::kInvalidArgument:
    case Code::kAborted:
    case Code::kClosed: return KELDA_INVALID_ARGUMENT;
    case Code::kTooLarge: return KELDA_TOO_LARGE;
    case Code::kNoSpace: return KELDA_NO_SPACE;
    case Code::kBusy: return KELDA_BUSY;
    case Code::kCorrupt: return KELDA_CORRUPT;
    case Code::kIo: return KELDA_IO;
    case Code::kFailed: return KELDA_FAILED;
    case Code::kLockTimeout: return KELDA_LOCK_TIMEOUT;
    case Code::kSelfDeadlock: return KELDA_SELF_DEADLOCK;
    case Code::kOutOfMemory: return KELDA_OUT_OF_MEMORY;
    default: return KELDA_OTHER;
  }
}

kelda_code report(const Error& error) {
  last_message = error.to_string();
  fixed_message = nullptr;
  return code_of(error.code());
}

template <class T>
kelda_code code_of(const Result<T>& result) {
  return result ? KELDA_OK : report(result.error());
}

// For calls whose value says whether there was something.
kelda_code found(const Result<bool>& result) {
  if (!result) return report(result.error());
  return *result ? KELDA_OK : fail(KELDA_NOT_FOUND, "not found");
}

template <class Body>
kelda_code guarded(Body body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(KELDA_OUT_OF_MEMORY, "out of memory");
  } catch (...) {
    return fail(KELDA_OTHER, "an unexpected exception: the call may have been done in part");
  }
}

constexpr const char* kNoDatabase = "this is no open database: it was closed, or never opened";
constexpr const char* kNoTransaction = "this is no open transaction: it has ended (commit and roll back end it, whatever they "
                                       "return), or never began";
constexpr const char* kNoScan = "this is no open scan: it was closed, or never opened";
constexpr const char* kNoPlace = "a pointer to where the result belongs is NULL";

// KELDA_OK, or what is wrong with the bytes. Looked at before anything reads them.
kelda_code check(const void* data, size_t bytes, size_t most, const char* null, const char* too_long) {
  if (data == nullptr && bytes != 0) return invalid(null);
  return bytes > most ? fail(KELDA_TOO_LARGE, too_long) : KELDA_OK;
}
kelda_code check_key(const void* key, size_t bytes) {
  static_assert(kelda::btree::kMaxKeyBytes == 1024);
  return check(key, bytes, kelda::btree::kMaxKeyBytes, "the key is NULL, though its length is not 0",
               "a key has at most 1024 bytes, this one is longer");
}
kelda_code check_value(const void* value, size_t bytes) {
  return check(value, bytes, kelda::btree::kMaxValueBytes, "the value is NULL, though its length is not 0",
               "a value has at most 1 MiB, this one is longer");
}

// Gives the caller a handle of `object`, which lives until that is taken back.
template <class Handle, class Object>
kelda_code hand_out(kelda::engine::Handles<Object>& handles, std::unique_ptr<Object> object, Handle** place, const char* too_many) {
  *place = static_cast<Handle*>(handles.give_out(object.get()));
  if (*place == nullptr) return fail(KELDA_OUT_OF_MEMORY, too_many);
  static_cast<void>(object.release());
  return KELDA_OK;
}

std::string_view view(const void* data, size_t bytes) {
  return bytes == 0 ? std::string_view() : std::string_view(static_cast<const char*>(data), bytes);
}
kelda::Tree tree_of(kelda_tree tree) { return {kelda::TreeId{tree.id}, tree.entry, tree.database}; }

// Runs body(transaction) when the handle and the key are such.
template <class Body>
kelda_code with_key(kelda_transaction* transaction, const void* key, size_t key_bytes, Body body) {
  return guarded([&] {
    OpenTransaction* const open = transactions().find(transaction);
    if (open == nullptr) return invalid(kNoTransaction);
    const kelda_code code = check_key(key, key_bytes);
    return code == KELDA_OK ? body(*open) : code;
  });
}

template <class End>
kelda_code end_transaction(kelda_transaction* transaction, End end) {
  return guarded([&] {
    const std::unique_ptr<OpenTransaction> owned(transactions().take_back(transaction));
    return owned == nullptr ? invalid(kNoTransaction) : code_of(end(*owned->txn));
  });
}

}  // namespace

extern "C" {

const char* kelda_error_message(void) { return fixed_message != nullptr ? fixed_message : last_message.c_str(); }

kelda_code kelda_open(const char* device_name, const kelda_options* options, kelda_database** database) {
  return guarded([&] {
    if (database == nullptr) return invalid(kNoPlace);
    *database = nullptr;
    if (device_name == nullptr || *device_name == '\0') return invalid("the device's name is NULL or empty");
    kelda::DatabaseOptions db_options;
    std::uint64_t create_bytes = 0;
    if (options != nullptr) {
      if (options->memory_bytes != 0) db_options.memory_bytes = options->memory_bytes;
      if (options->durability_none != 0) db_options.durability = kelda::DurabilityMode::kNone;
      if (options->lock_timeout_us != 0) db_options.lock_timeout_us = options->lock_timeout_us;
      create_bytes = options->create_bytes;
      db_options.create_if_blank = create_bytes != 0;
    }
    auto opened = kelda::Database::open(device_name, create_bytes, db_options);
    if (!opened) return report(opened.error());
    return hand_out(databases(), std::make_unique<OpenDatabase>(std::move(*opened)), database, "too many databases are open");
  });
}

kelda_code kelda_close(kelda_database* database) {
  return guarded([&] {
    OpenDatabase* const open = databases().find(database);
    if (open == nullptr) return invalid(kNoDatabase);
    const auto closed = open->db->close();
    if (closed.failed_with(Code::kBusy)) return report(closed.error());  // open as before
    const std::unique_ptr<OpenDatabase> owned(databases().take_back(database));
    return code_of(closed);
  });
}

kelda_code kelda_open_tree(kelda_database* database, const char* name, int create, kelda_tree* tree) {
  return guarded([&] {
    OpenDatabase* const open = databases().find(database);
    if (open == nullptr) return invalid(kNoDatabase);
    if (name == nullptr) return invalid("the tree's name is NULL");
    if (tree == nullptr) return invalid(kNoPlace);
    *tree = {};
    const auto opened = open->db->tree(name, create != 0);
    if (!opened) return report(opened.error());
    *tree = {opened->id().value, opened->entry(), opened->database()};
    return KELDA_OK;
  });
}

kelda_code kelda_begin(kelda_database* database, kelda_transaction** transaction) {
  return guarded([&] {
    if (transaction == nullptr) return invalid(kNoPlace);
    *transaction = nullptr;
    OpenDatabase* const open = databases().find(database);
    if (open == nullptr) return invalid(kNoDatabase);
    auto owned = std::make_unique<OpenTransaction>();
    owned->txn = open->db->begin();
    return hand_out(transactions(), std::move(owned), transaction, "too many transactions are open");
  });
}

kelda_code kelda_set_lock_timeout(kelda_transaction* transaction, uint64_t timeout_us) {
  return guarded([&] {
    OpenTransaction* const open = transactions().find(transaction);
    if (open == nullptr) return invalid(kNoTransaction);
    open->txn->set_lock_timeout_us(timeout_us);
    return KELDA_OK;
  });
}

kelda_code kelda_commit(kelda_transaction* transaction) {
  return end_transaction(transaction, [](kelda::Transaction& txn) { return txn.commit(); });
}

kelda_code kelda_roll_back(kelda_transaction* transaction) {
  return end_transaction(transaction, [](kelda::Transaction& txn) { return txn.roll_back(); });
}

kelda_code kelda_get(kelda_transaction* transaction, kelda_tree tree, const void* key, size_t key_bytes, const void** value,
                     size_t* value_bytes) {
  return with_key(transaction, key, key_bytes, [&](OpenTransaction& open) {
    if (value == nullptr || value_bytes == nullptr) return invalid(kNoPlace);
    const kelda_code code = found(open.txn->get(tree_of(tree), view(key, key_bytes), open.value));
    *value = code == KELDA_OK ? open.value.data() : nullptr;
    *value_bytes = code == KELDA_OK ? open.value.size() : 0;
    return code;
  });
}

kelda_code kelda_put(kelda_transaction* transaction, kelda_tree tree, const void* key, size_t key_bytes, const void* value,
                     size_t value_bytes) {
  return with_key(transaction, key, key_bytes, [&](OpenTransaction& open) {
    const kelda_code code = check_value(value, value_bytes);
    return code == KELDA_OK ? code_of(open.txn->put(tree_of(tree), view(key, key_bytes), view(value, value_bytes))) : code;
  });
}

kelda_code kelda_remove(kelda_transaction* transaction, kelda_tree tree, const void* key, size_t key_bytes) {
  return with_key(transaction, key, key_bytes,
                  [&](OpenTransaction& open) { return found(open.txn->remove(tree_of(tree), view(key, key_bytes))); });
}

kelda_code kelda_scan_open(kelda_transaction* transaction, kelda_tree tree, const void* key, size_t key_bytes, kelda_scan** scan) {
  if (scan != nullptr) *scan = nullptr;
  return with_key(transaction, key, key_bytes, [&](OpenTransaction& open) {
    if (scan == nullptr) return invalid(kNoPlace);
    auto opened = open.txn->scan(tree_of(tree));
    if (!opened) return report(opened.error());
    const kelda_code code = found((*opened)->seek(view(key, key_bytes)));
    if (code != KELDA_OK) return code;
    return hand_out(scans(), std::make_unique<OpenScan>(std::move(*opened)), scan, "too many scans are open");
  });
}

kelda_code kelda_scan_next(kelda_scan* scan) {
  return guarded([&] {
    OpenScan* const open = scans().find(scan);
    return open == nullptr ? invalid(kNoScan) : found(open->scan->next());
  });
}

kelda_code kelda_scan_current(kelda_scan* scan, const void** key, size_t* key_bytes, const void** value, size_t* value_bytes) {
  return guarded([&] {
    if (key == nullptr || key_bytes == nullptr || value == nullptr || value_bytes == nullptr) return invalid(kNoPlace);
    OpenScan* const open = scans().find(scan);
    if (open == nullptr) return invalid(kNoScan);
    const auto v = open->scan->value();
    if (!v) return report(v.error());
    const std::string_view k = open->scan->key();
    *key = k.data();
    *key_bytes = k.size();
    *value = v->data();
    *value_bytes = v->size();
    return KELDA_OK;
  });
}

kelda_code kelda_scan_close(kelda_scan* scan) {
  return guarded([&] {
    const std::unique_ptr<OpenScan> owned(scans().take_back(scan));
    return owned == nullptr ? invalid(kNoScan) : KELDA_OK;
  });
}

}  // extern "C"
