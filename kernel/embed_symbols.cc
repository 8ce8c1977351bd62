// kelda-embed-symbols PROGRAM: writes the names of a linked program's functions into its own .kelda_symbols section,
// for backtraces (layout: symbols.h). Runs on the build machine after linking.
//
// Names are demangled and lose their parameter list. When they do not fit, functions outside namespace kelda go first.
#include <cxxabi.h>
#include <elf.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "kernel/symbols.h"

namespace {

using kelda::kernel::kSymbolMagic;
using kelda::kernel::kSymbolTableBytes;

constexpr std::size_t kLongestName = 100;

struct Function {
  std::uint64_t address;
  std::string name;
};

[[noreturn]] void fail(const char* path, const char* why) {
  std::fprintf(stderr, "kelda-embed-symbols: %s: %s\n", path, why);
  std::exit(1);
}

// "a::f(int) const" -> "a::f"
std::string without_parameters(const std::string& name) {
  std::size_t end = name.rfind(')');
  if (end == std::string::npos) return name;
  int depth = 0;
  for (std::size_t i = end + 1; i-- > 0;) {
    if (name[i] == ')') ++depth;
    if (name[i] == '(' && --depth == 0) return i == 0 ? name : name.substr(0, i);
  }
  return name;
}

std::string readable(const char* symbol) {
  int status = 0;
  char* demangled = abi::__cxa_demangle(symbol, nullptr, nullptr, &status);
  std::string name = status == 0 ? without_parameters(demangled) : symbol;
  std::free(demangled);
  if (name.size() > kLongestName) name.resize(kLongestName);
  return name;
}

class Image {
 public:
  explicit Image(const char* path) : path_(path) {
    std::ifstream in(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
    if (bytes_.size() < sizeof(Elf64_Ehdr) || std::memcmp(bytes_.data(), ELFMAG, SELFMAG) != 0)
      fail(path, "not an ELF file");
  }

  const Elf64_Shdr* section(const char* name) const {
    const Elf64_Shdr* sections = at<Elf64_Shdr>(header().e_shoff);
    const Elf64_Shdr& names = sections[header().e_shstrndx];
    for (unsigned i = 0; i < header().e_shnum; ++i) {
      if (std::strcmp(at<char>(names.sh_offset + sections[i].sh_name), name) == 0) return &sections[i];
    }
    return nullptr;
  }

  std::vector<Function> functions() const {
    const Elf64_Shdr* symbols = section(".symtab");
    const Elf64_Shdr* strings = section(".strtab");
    if (!symbols || !strings) fail(path_, "no symbol table (already stripped?)");
    const Elf64_Shdr* sections = at<Elf64_Shdr>(header().e_shoff);
    std::vector<Function> out;
    for (std::size_t i = 0; i < symbols->sh_size / sizeof(Elf64_Sym); ++i) {
      const Elf64_Sym& symbol = at<Elf64_Sym>(symbols->sh_offset)[i];
      unsigned type = ELF64_ST_TYPE(symbol.st_info);
      if ((type != STT_FUNC && type != STT_GNU_IFUNC) || symbol.st_shndx == SHN_UNDEF ||
          symbol.st_shndx >= header().e_shnum)
        continue;
      if (!(sections[symbol.st_shndx].sh_flags & SHF_EXECINSTR)) continue;
      out.push_back({symbol.st_value, readable(at<char>(strings->sh_offset + symbol.st_name))});
    }
    std::stable_sort(out.begin(), out.end(),
                     [](const Function& a, const Function& b) { return a.address < b.address; });
    out.erase(std::unique(out.begin(), out.end(),
                          [](const Function& a, const Function& b) { return a.address == b.address; }),
              out.end());
    return out;
  }

  void write_at(std::uint64_t offset, const std::string& data) const {
    std::fstream out(path_, std::ios::binary | std::ios::in | std::ios::out);
    out.seekp(static_cast<std::streamoff>(offset));
    out.write(data.data(), static_cast<std::streamsize>(data.size()));
    if (!out.flush()) fail(path_, "cannot write");
  }

 private:
  template <class T>
  const T* at(std::uint64_t offset) const {
    return reinterpret_cast<const T*>(bytes_.data() + offset);
  }
  const Elf64_Ehdr& header() const { return *at<Elf64_Ehdr>(0); }

  const char* path_;
  std::vector<char> bytes_;
};

template <class T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string encode(const std::vector<Function>& functions) {
  std::string out;
  append(out, kSymbolMagic);
  append(out, static_cast<std::uint32_t>(functions.size()));
  std::uint64_t previous = functions.empty() ? 0 : functions[0].address;
  append(out, previous);
  const std::string* last = nullptr;
  for (const Function& function : functions) {
    std::uint64_t delta = function.address - previous;
    previous = function.address;
    do {
      out.push_back(static_cast<char>((delta & 0x7f) | (delta > 0x7f ? 0x80 : 0)));
      delta >>= 7;
    } while (delta);
    std::size_t shared = 0;
    while (last && shared < last->size() && shared < function.name.size() && (*last)[shared] == function.name[shared])
      ++shared;
    out.push_back(static_cast<char>(shared));
    out.push_back(static_cast<char>(function.name.size() - shared));
    out.append(function.name, shared);
    last = &function.name;
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) fail("usage", "kelda-embed-symbols PROGRAM");
  Image image(argv[1]);
  const Elf64_Shdr* target = image.section(".kelda_symbols");
  if (!target) fail(argv[1], "no .kelda_symbols section");
  std::vector<Function> functions = image.functions();
  std::string table = encode(functions);
  if (table.size() > kSymbolTableBytes) {
    std::erase_if(functions, [](const Function& f) { return f.name.find("kelda") == std::string::npos; });
    table = encode(functions);
    if (table.size() > kSymbolTableBytes)
      fail(argv[1], "the program's own symbols do not fit; raise kSymbolTableBytes");
  }
  image.write_at(target->sh_offset, table);
}
