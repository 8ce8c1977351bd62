#include "kernel/area_list.h"

#include <cstring>

namespace kelda::kernel {

std::size_t AreaList::first_ending_after(std::uint64_t address) const {
  std::size_t low = 0, high = count_;
  while (low < high) {
    std::size_t middle = (low + high) / 2;
    if (areas_[middle].end <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

void AreaList::insert_at(std::size_t index, Area area) {
  std::memmove(&areas_[index + 1], &areas_[index], (count_ - index) * sizeof(Area));
  areas_[index] = area;
  ++count_;
}

void AreaList::remove(std::size_t first, std::size_t last) {
  std::memmove(&areas_[first], &areas_[last], (count_ - last) * sizeof(Area));
  count_ -= last - first;
}

void AreaList::merge_at(std::size_t index) {
  if (index == 0 || index >= count_) return;
  Area& left = areas_[index - 1];
  if (left.end != areas_[index].begin || left.protection != areas_[index].protection) return;
  left.end = areas_[index].end;
  remove(index, index + 1);
}

const Area* AreaList::find(std::uint64_t address) const {
  std::size_t i = first_ending_after(address);
  return i < count_ && areas_[i].begin <= address ? &areas_[i] : nullptr;
}

bool AreaList::clear(std::uint64_t begin, std::uint64_t end) {
  if (!make_room_(count_ + 2)) return false;
  std::size_t first = first_ending_after(begin);
  if (first == count_ || areas_[first].begin >= end) return true;
  if (areas_[first].begin < begin) {
    Area left{areas_[first].begin, begin, areas_[first].protection};
    areas_[first].begin = begin;
    insert_at(first++, left);
  }
  std::size_t last = first;
  while (last < count_ && areas_[last].end <= end) ++last;
  if (last < count_ && areas_[last].begin < end) areas_[last].begin = end;
  remove(first, last);
  return true;
}

bool AreaList::set(std::uint64_t begin, std::uint64_t end, Protection protection) {
  if (!clear(begin, end)) return false;
  std::size_t index = first_ending_after(begin);
  insert_at(index, {begin, end, protection});
  merge_at(index + 1);
  merge_at(index);
  return true;
}

bool AreaList::covers(std::uint64_t begin, std::uint64_t end) const {
  for (std::size_t i = first_ending_after(begin); i < count_ && begin < end; ++i) {
    if (areas_[i].begin > begin) return false;
    begin = areas_[i].end;
  }
  return begin >= end;
}

bool AreaList::is_gap(std::uint64_t begin, std::uint64_t end) const {
  std::size_t i = first_ending_after(begin);
  return i == count_ || areas_[i].begin >= end;
}

std::optional<std::uint64_t> AreaList::find_gap(std::uint64_t size, std::uint64_t from, std::uint64_t limit) const {
  std::uint64_t candidate = from;
  for (std::size_t i = first_ending_after(from); i < count_; ++i) {
    if (areas_[i].begin >= limit) break;
    if (areas_[i].begin > candidate && areas_[i].begin - candidate >= size) return candidate;
    candidate = areas_[i].end;
  }
  if (candidate >= limit || limit - candidate < size) return std::nullopt;
  return candidate;
}

}  // namespace kelda::kernel
