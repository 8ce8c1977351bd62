// The bytes a client has sent and the server has not used up yet, contiguous.
//
// Contract: data() stays valid until the next room() or shrink(). An idle connection owns kSmallBytes; the
// buffer doubles while reads fill it, and shrink() gives the memory back when it is empty again.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "common/types.h"

namespace kelda::server {

class InputBuffer {
 public:
  static constexpr std::size_t kSmallBytes = 1024;
  // Growth by doubling stops here unless a single request needs more.
  static constexpr std::size_t kReadAheadBytes = 64 * 1024;

  std::string_view data() const { return {bytes_.get() + begin_, end_ - begin_}; }
  std::size_t capacity() const { return capacity_; }

  // Free space to read into: never empty, and on the way to a whole request of `needed` bytes. It grows with what has
  // come, not with what was announced: an announcement costs a client nothing.
  MutableBytes room(std::size_t needed = 0);
  // `count` bytes of the room were filled.
  void filled(std::size_t count);
  void consume(std::size_t count);
  // Called before waiting for an idle client.
  void shrink();

 private:
  void reallocate(std::size_t capacity);

  std::unique_ptr<char[]> bytes_;
  std::size_t capacity_ = 0, begin_ = 0, end_ = 0;
  bool read_filled_room_ = false;  // the last read left nothing free: more is probably waiting
};

}  // namespace kelda::server
