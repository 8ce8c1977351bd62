// A disk that a command is about to create must not stay behind when the command fails before it wrote anything.
#pragma once

#include <string>

namespace kelda::tools {

// Made before the disk is created; its end removes a file that was not there then and holds nothing: no block was ever
// written to it. On Linux only; bare, a disk's name is no file.
class NewDisk {
 public:
  explicit NewDisk(std::string path);
  ~NewDisk();
  void keep() { may_remove_ = false; }
  NewDisk(const NewDisk&) = delete;
  NewDisk& operator=(const NewDisk&) = delete;

 private:
  std::string path_;
  bool may_remove_;
};

}  // namespace kelda::tools
