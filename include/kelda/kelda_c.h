/* Kelda's C interface: the same database as kelda.h, for programs in C and for bindings of other languages.
 *
 * Contract: every function that can fail returns KELDA_OK or a code below; kelda_error_message() then tells the calling
 * thread what happened and what to do. Keys and values are bytes with a length. Thread-safety as in kelda.h: everything but
 * one transaction or scan may be used from several threads at once. Pointers to keys and values that a function hands out stay
 * valid until the next call on the same object. What kelda_database, kelda_transaction and kelda_scan point to is looked up: one
 * that is NULL, has ended or never was gets KELDA_INVALID_ARGUMENT, as does a kelda_tree of another database, and NULL where a
 * key, a value or a place for a result belongs. No exception leaves a function. After an error the places for results hold 0.
 *
 * A call waits for what other transactions hold for lock_timeout_us at most (KELDA_LOCK_TIMEOUT), and not at all for another
 * transaction of its own thread (KELDA_SELF_DEADLOCK): kelda.h, at its top. */
#ifndef KELDA_KELDA_C_H
#define KELDA_KELDA_C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kelda_database kelda_database;
typedef struct kelda_transaction kelda_transaction;
typedef struct kelda_scan kelda_scan;
typedef struct kelda_tree {
  uint64_t id;
  void* entry;
  uint64_t database;
} kelda_tree;

typedef enum kelda_code {
  KELDA_OK = 0,
  KELDA_NOT_FOUND = 1,      /* also: no such key, end of a scan */
  KELDA_CONFLICT = 2,       /* roll back and run the transaction again */
  KELDA_INVALID_ARGUMENT = 3,
  KELDA_TOO_LARGE = 4,
  KELDA_NO_SPACE = 5,       /* the disk is full: reads and removals go on */
  KELDA_BUSY = 6,           /* in use by another process; transactions are open */
  KELDA_CORRUPT = 7,
  KELDA_IO = 8,
  KELDA_FAILED = 9,         /* the engine stopped acknowledging: open again to recover */
  KELDA_OTHER = 10,         /* see the message */
  KELDA_LOCK_TIMEOUT = 11,  /* another transaction held a lock for too long; this one is as before the call */
  KELDA_SELF_DEADLOCK = 12, /* another open transaction of this thread holds the lock; this one is as before the call */
  KELDA_OUT_OF_MEMORY = 13
} kelda_code;

#define KELDA_NO_LOCK_TIMEOUT UINT64_MAX

/* Set all to 0 first, so that what later versions add has its default. */
typedef struct kelda_options {
  uint64_t memory_bytes;    /* 0: 256 MiB */
  uint64_t create_bytes;    /* not 0: create the file with this size, and format a blank device */
  int durability_none;      /* not 0: an acknowledged commit may be lost */
  uint64_t lock_timeout_us; /* 0: 5 seconds; KELDA_NO_LOCK_TIMEOUT: for as long as it takes */
} kelda_options;

/* What the last failed call of this thread has to say. Never NULL. */
const char* kelda_error_message(void);

kelda_code kelda_open(const char* device_name, const kelda_options* options, kelda_database** database);
/* Closes cleanly and frees. KELDA_BUSY while a transaction is open: nothing was done. After any other error the database is
 * closed and freed all the same; the next open recovers. */
kelda_code kelda_close(kelda_database* database);
kelda_code kelda_open_tree(kelda_database* database, const char* name, int create, kelda_tree* tree);

/* Frees nothing on failure; end every transaction with commit or roll back, which free it whatever they return. */
kelda_code kelda_begin(kelda_database* database, kelda_transaction** transaction);
/* For the transaction's later calls, instead of the option. 0: does not wait. */
kelda_code kelda_set_lock_timeout(kelda_transaction* transaction, uint64_t timeout_us);
kelda_code kelda_commit(kelda_transaction* transaction);
kelda_code kelda_roll_back(kelda_transaction* transaction);

kelda_code kelda_get(kelda_transaction* transaction, kelda_tree tree, const void* key, size_t key_bytes, const void** value,
                     size_t* value_bytes);
kelda_code kelda_put(kelda_transaction* transaction, kelda_tree tree, const void* key, size_t key_bytes, const void* value,
                     size_t value_bytes);
/* KELDA_NOT_FOUND: it was not there. */
kelda_code kelda_remove(kelda_transaction* transaction, kelda_tree tree, const void* key, size_t key_bytes);

/* Positions on the first key >= key (key_bytes 0: the first of all); KELDA_NOT_FOUND: there is none, and no scan
 * to free. Once its transaction has ended a scan can only be closed. */
kelda_code kelda_scan_open(kelda_transaction* transaction, kelda_tree tree, const void* key, size_t key_bytes, kelda_scan** scan);
kelda_code kelda_scan_next(kelda_scan* scan);
kelda_code kelda_scan_current(kelda_scan* scan, const void** key, size_t* key_bytes, const void** value, size_t* value_bytes);
kelda_code kelda_scan_close(kelda_scan* scan);

#ifdef __cplusplus
}
#endif

#endif
