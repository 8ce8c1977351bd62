#include "btree/descent.h"

#include "runtime/core.h"

namespace kelda::btree {

Walk enter_slowly(const TreeEnv& env, NodeRef& node, const NodeRef* parent, Path& path) {
  if (parent != nullptr && !validate(env, *parent)) return Walk::kRestart;
  auto resident = env.pool.make_resident(node.page);
  if (!resident) {
    // The page may have been freed while it was read: then nobody points to it any more.
    if (parent != nullptr && !validate(env, *parent)) return Walk::kRestart;
    path.error = resident.failed_with(Code::kNotFound) ? corrupt_page(node.page, "in use, but never written")
                                                       : std::move(resident).error();
    return Walk::kFailed;
  }
  return env.pool.optimistic_begin(node.page, node.version) ? Walk::kOk : Walk::kRestart;
}

Walk suspect(const TreeEnv& env, const NodeRef& node, const char* what, Path& path) {
  if (!validate(env, node)) return Walk::kRestart;
  path.error = corrupt_page(node.page, what);
  return Walk::kFailed;
}

void after_restart(unsigned attempt) {
  if (attempt % kTriesBetweenYields == kTriesBetweenYields - 1) {
    runtime::Core::current().yield();
  } else {
    __builtin_ia32_pause();
  }
}

}  // namespace kelda::btree
