/* Embedding Kelda in C: a counter that survives.
 *
 *   make lib
 *   gcc -c examples/embed/counter.c $(PKG_CONFIG_PATH=build-lib pkg-config --cflags kelda-c)
 *   g++ counter.o $(PKG_CONFIG_PATH=build-lib pkg-config --libs kelda-c) -o counter && ./counter counter.disk */
#include <kelda/kelda_c.h>

#include <stdio.h>
#include <string.h>

static int fail(const char* what) {
  fprintf(stderr, "counter: %s: %s\n", what, kelda_error_message());
  return 1;
}

int main(int argc, char** argv) {
  kelda_options options = {.memory_bytes = 32 << 20, .create_bytes = 64 << 20};
  kelda_database* db;
  kelda_tree tree;
  kelda_transaction* txn;
  const void* value;
  size_t bytes;
  unsigned long count = 0;

  if (kelda_open(argc > 1 ? argv[1] : "counter.disk", &options, &db) != KELDA_OK) return fail("open");
  if (kelda_open_tree(db, "counters", 1, &tree) != KELDA_OK || kelda_begin(db, &txn) != KELDA_OK) return fail("begin");
  if (kelda_get(txn, tree, "runs", 4, &value, &bytes) == KELDA_OK && bytes == sizeof count) memcpy(&count, value, bytes);
  ++count;
  if (kelda_put(txn, tree, "runs", 4, &count, sizeof count) != KELDA_OK) return fail("put");
  if (kelda_commit(txn) != KELDA_OK) return fail("commit");
  printf("run number %lu\n", count);
  return kelda_close(db) == KELDA_OK ? 0 : fail("close");
}
