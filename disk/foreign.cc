#include "disk/foreign.h"

#include <algorithm>
#include <string_view>

namespace kelda::disk {
namespace {

struct Signature {
  std::uint32_t offset;
  std::string_view magic;
  std::string_view what;
};

using namespace std::string_view_literals;

// Containers of others (LUKS, LVM, RAID) before partition tables, since boot sectors are copied around.
constexpr Signature kSignatures[] = {
    {0, "LUKS\xba\xbe"sv, "a LUKS encrypted volume"},
    {0, "SQLite format 3\0"sv, "an SQLite database"},
    {0, "XFSB"sv, "an XFS filesystem"},
    {0x438, "\x53\xef"sv, "an ext2/3/4 filesystem"},
    {0x10040, "_BHRfS_M"sv, "a Btrfs filesystem"},
    {0x400, "\x10\x20\xf5\xf2"sv, "an F2FS filesystem"},
    {512, "LABELONE"sv, "an LVM physical volume"},
    {0x1000, "\xfc\x4e\x2b\xa9"sv, "a Linux software RAID member"},
    {4086, "SWAPSPACE2"sv, "Linux swap space"},
    {3, "NTFS    "sv, "an NTFS filesystem"},
    {3, "EXFAT   "sv, "an exFAT filesystem"},
    {82, "FAT32   "sv, "a FAT filesystem"},
    {54, "FAT1"sv, "a FAT filesystem"},
    {0x8001, "CD001"sv, "an ISO 9660 image"},
    {512, "EFI PART"sv, "a GPT partition table"},
    {4096, "EFI PART"sv, "a GPT partition table"},
    {0, "QFI\xfb"sv, "a qcow2 disk image (its content may be Kelda's: open it as the disk of a virtual machine)"},
    {0, "KDMV"sv, "a VMDK disk image"},
    {0, "vhdxfile"sv, "a VHDX disk image"},
    {0x40, "\x7f\x10\xda\xbe"sv, "a VDI disk image"},
    {0, "hsqs"sv, "a SquashFS filesystem"},
    {0, "REDIS"sv, "a Redis snapshot (RDB)"},
    {0, "\x7f" "ELF"sv, "a program (ELF)"},
    {0, "\x1f\x8b"sv, "gzip data"},
    {0, "\x28\xb5\x2f\xfd"sv, "Zstandard data"},
    {0, "\xfd" "7zXZ"sv, "xz data"},
    {0, "PK\x03\x04"sv, "a ZIP archive"},
    {0, "%PDF-"sv, "a PDF document"},
    {257, "ustar"sv, "a tar archive"},
    {510, "\x55\xaa"sv, "a partition table or boot sector (MBR)"},
};

bool matches(Bytes start, const Signature& signature) {
  if (start.size() < signature.offset + signature.magic.size()) return false;
  return as_view(start.subspan(signature.offset, signature.magic.size())) == signature.magic;
}

bool is_text(unsigned char c) { return (c >= 0x20 && c != 0x7f) || c == '\n' || c == '\r' || c == '\t'; }

// Text, possibly padded with zeroes at its end (as a small file on a block device is).
bool begins_with_text(Bytes start) {
  std::string_view text = as_view(start.first(std::min<std::size_t>(start.size(), 512)));
  text = text.substr(0, text.find('\0'));
  return !text.empty() && std::ranges::all_of(text, [](char c) { return is_text(static_cast<unsigned char>(c)); });
}

}  // namespace

std::string describe_foreign(Bytes start) {
  for (const Signature& signature : kSignatures) {
    if (matches(start, signature)) return std::string(signature.what);
  }
  // What the text says is nobody's business but its owner's: errors end up in logs.
  if (begins_with_text(start)) return "text";
  return "data of an unknown kind";
}

}  // namespace kelda::disk
