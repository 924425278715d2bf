// SPDX-License-Identifier: Apache-2.0
// npz: a zip archive of npy files, stored or deflated. What its directory claims is checked before it is
// believed: places, sizes, and that no two members share bytes.
#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "host/io/foreign.hpp"
#include "host/io/inflate.hpp"
#include "host/io/model.hpp"

namespace bragg::detail {

namespace {

using namespace std::string_view_literals;

constexpr std::int64_t end_bytes = 22, end64_bytes = 56, locator_bytes = 20, entry_bytes = 46,
                       local_bytes = 30;
constexpr std::int64_t most_directory_bytes = 16 << 20;  // some 200 000 arrays
constexpr std::int64_t most_array_header = 1 << 16;
constexpr std::int64_t most_expansion = 1032;  // deflate's

/// Little-endian numbers of a piece of the file.
class Fields {
 public:
  explicit Fields(std::string_view text) : text_(text) {}
  std::uint64_t number(std::size_t at, std::size_t bytes) const {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < bytes; ++i)
      value |= static_cast<std::uint64_t>(static_cast<unsigned char>(text_.at(at + i))) << (8 * i);
    return value;
  }
  std::uint64_t two(std::size_t at) const { return number(at, 2); }
  std::uint64_t four(std::size_t at) const { return number(at, 4); }
  std::uint64_t eight(std::size_t at) const { return number(at, 8); }

 private:
  std::string_view text_;
};

std::string read_text(const ReadFile& file, std::int64_t offset, std::int64_t bytes) {
  std::string text(static_cast<std::size_t>(bytes), '\0');
  file.read(offset, text.data(), bytes);
  return text;
}

[[noreturn]] void refuse(const ReadFile& file, const std::string& what) {
  throw_bad_file(file.path(), "npz: " + what);
}

struct Member {
  std::string_view name;
  bool deflated = false;
  std::uint32_t crc = 0;
  std::int64_t packed = 0, bytes = 0, local = 0;
};

/// The archive's list of members, at its end.
class Directory {
 public:
  explicit Directory(const ReadFile& file) : file_(file) {
    find_end();
    if (bytes_ > most_directory_bytes)
      refuse(file,
             fmt::format("the directory has {} bytes, expected at most {}", bytes_, most_directory_bytes));
    text_ = read_text(file, begin_, bytes_);
  }

  std::int64_t begin() const { return begin_; }

  template <class F>
  void each(F f) const {
    std::string_view rest = text_;
    std::uint64_t found = 0;
    for (; !rest.empty(); ++found) f(take(rest));
    if (found != count_)
      refuse(file_, fmt::format("the directory holds {} members, but says {}", found, count_));
  }

 private:
  void find_end() {
    constexpr std::int64_t longest_comment = 65535;
    const std::int64_t begin = std::max<std::int64_t>(0, file_.size() - end_bytes - longest_comment);
    const std::string tail = read_text(file_, begin, file_.size() - begin);
    std::size_t at = tail.rfind("PK\x05\x06"sv);
    while (at != std::string::npos) {
      const std::size_t left = tail.size() - at;
      if (left >= static_cast<std::size_t>(end_bytes) &&
          Fields(tail).two(at + 20) == left - static_cast<std::size_t>(end_bytes))
        break;
      at = at == 0 ? std::string::npos : tail.rfind("PK\x05\x06"sv, at - 1);
    }
    if (at == std::string::npos)
      refuse(file_, "has no end of a zip archive: it is cut off, or no zip archive");
    const Fields end(std::string_view(tail).substr(at));
    std::int64_t limit = begin + static_cast<std::int64_t>(at);
    std::uint64_t disk = end.two(4), first_disk = end.two(6), bytes = end.four(12), offset = end.four(16);
    count_ = end.two(10);
    // Writers may give the 64-bit end where the other would do.
    const std::string locator =
        limit >= locator_bytes ? read_text(file_, limit - locator_bytes, locator_bytes) : "";
    if (locator.starts_with("PK\x06\x07"sv)) {
      const std::uint64_t place = Fields(locator).eight(8);
      if (place > static_cast<std::uint64_t>(limit - locator_bytes) ||
          limit - locator_bytes - static_cast<std::int64_t>(place) < end64_bytes) {
        refuse(file_, fmt::format("the 64-bit end of the archive is said to be at byte {}", place));
      }
      limit = static_cast<std::int64_t>(place);
      const std::string text = read_text(file_, limit, end64_bytes);
      if (!text.starts_with("PK\x06\x06"sv))
        refuse(file_, fmt::format("has no 64-bit end at byte {}", place));
      const Fields end64(text);
      disk = end64.four(16);
      first_disk = end64.four(20);
      count_ = end64.eight(32);
      bytes = end64.eight(40);
      offset = end64.eight(48);
    }
    if (disk != 0 || first_disk != 0) refuse(file_, "is a part of an archive in several files");
    const auto most = static_cast<std::uint64_t>(limit);
    if (offset > most || bytes != most - offset)
      refuse(file_, fmt::format("the directory is said to be {} bytes at byte {}, but ends at {}", bytes,
                                offset, limit));
    begin_ = static_cast<std::int64_t>(offset);
    bytes_ = static_cast<std::int64_t>(bytes);
  }

  Member take(std::string_view& rest) const {
    if (!rest.starts_with("PK\x01\x02"sv) || rest.size() < static_cast<std::size_t>(entry_bytes))
      refuse(file_, "the directory is damaged");
    const Fields entry(rest);
    const std::size_t name_bytes = entry.two(28), extra_bytes = entry.two(30);
    const std::size_t all = static_cast<std::size_t>(entry_bytes) + name_bytes + extra_bytes + entry.two(32);
    if (all > rest.size()) refuse(file_, "the directory is damaged");
    Member member{.name = rest.substr(static_cast<std::size_t>(entry_bytes), name_bytes),
                  .crc = static_cast<std::uint32_t>(entry.four(16))};
    const std::string name = show(member.name);
    const std::uint64_t method = entry.two(10);
    if ((entry.two(8) & 1u) != 0) refuse(file_, fmt::format("{} is encrypted", name));
    if (method != 0 && method != 8)
      refuse(file_,
             fmt::format("{} is packed by method {}, expected 0 (stored) or 8 (deflated)", name, method));
    member.deflated = method == 8;
    std::uint64_t values[] = {entry.four(24), entry.four(20), entry.four(42)};
    read_extra(rest.substr(static_cast<std::size_t>(entry_bytes) + name_bytes, extra_bytes), values, name);
    const auto limit = static_cast<std::uint64_t>(begin_);
    if (values[1] > limit || values[2] > limit || values[0] > limit * most_expansion)
      refuse(file_, fmt::format("{} is said to have more bytes than the archive can hold", name));
    member.bytes = static_cast<std::int64_t>(values[0]);
    member.packed = static_cast<std::int64_t>(values[1]);
    member.local = static_cast<std::int64_t>(values[2]);
    const bool fits = member.deflated ? member.bytes <= (member.packed + 1) * most_expansion
                                      : member.bytes == member.packed;
    if (!fits)
      refuse(file_,
             fmt::format("{} is said to be {} bytes packed into {}", name, member.bytes, member.packed));
    rest.remove_prefix(all);
    return member;
  }

  /// The 64-bit numbers that stand for those of all ones.
  void read_extra(std::string_view extra, std::uint64_t (&values)[3], const std::string& name) const {
    const Fields fields(extra);
    for (std::size_t at = 0; at + 4 <= extra.size();) {
      const std::size_t end = at + 4 + fields.two(at + 2);
      if (end > extra.size()) refuse(file_, fmt::format("{} has damaged extra fields", name));
      if (fields.two(at) == 1) {
        at += 4;
        for (std::uint64_t& value : values) {
          if (value != 0xFFFFFFFF) continue;
          if (at + 8 > end) refuse(file_, fmt::format("{} has damaged 64-bit sizes", name));
          value = fields.eight(at);
          at += 8;
        }
      }
      at = end;
    }
  }

  const ReadFile& file_;
  std::int64_t begin_ = 0, bytes_ = 0;
  std::uint64_t count_ = 0;
  std::string text_;
};

/// Where a member's bytes begin, behind its own header.
std::int64_t data_of(const ReadFile& file, const Member& member, std::int64_t limit) {
  const auto damaged = [&] {
    refuse(file, fmt::format("{} has no header at byte {}, where the directory says", show(member.name),
                             member.local));
  };
  const auto name_bytes = static_cast<std::int64_t>(member.name.size());
  if (limit - member.local < local_bytes + name_bytes) damaged();
  const std::string header = read_text(file, member.local, local_bytes + name_bytes);
  const Fields fields(header);
  if (!header.starts_with("PK\x03\x04"sv) ||
      header.substr(static_cast<std::size_t>(local_bytes)) != member.name ||
      fields.two(26) != member.name.size() || fields.two(8) != (member.deflated ? 8u : 0u)) {
    damaged();
  }
  const std::int64_t data =
      member.local + local_bytes + name_bytes + static_cast<std::int64_t>(fields.two(28));
  if (data > limit || member.packed > limit - data)
    refuse(file, fmt::format("{} ends beyond byte {}, where the directory begins", show(member.name), limit));
  return data;
}

/// Else few bytes could stand for many arrays.
void check_apart(const ReadFile& file, const Directory& directory) {
  std::vector<std::pair<std::int64_t, std::int64_t>> pieces;
  directory.each([&](const Member& member) {
    pieces.emplace_back(member.local, data_of(file, member, directory.begin()) + member.packed);
  });
  std::sort(pieces.begin(), pieces.end());
  for (std::size_t k = 1; k < pieces.size(); ++k) {
    if (pieces[k].first < pieces[k - 1].second)
      refuse(file, fmt::format("two members overlap at byte {}", pieces[k].first));
  }
}

/// As safetensors, which it may be written to, has them.
void check_name(const ReadFile& file, const std::string& name) {
  try {
    (void)nlohmann::json(name).dump();
  } catch (const nlohmann::json::type_error&) {
    refuse(file, fmt::format("the name of array {} is not UTF-8", show(name)));
  }
}

}  // namespace

void visit_npz(const ReadFile& file, ModelVisitor& visitor) {
  visitor.files.push_back({file.path(), file.id()});
  if (file.size() < end_bytes) refuse_foreign(file);
  if (file.size() < end_bytes) refuse(file, fmt::format("has {} bytes, no zip archive", file.size()));
  std::string start = read_text(file, 0, 4);
  if (!start.starts_with("PK"sv)) refuse_foreign(file);
  const Directory directory(file);
  check_apart(file, directory);
  std::int64_t header_bytes = 0;
  directory.each([&](const Member& member) {
    if (!member.name.ends_with(".npy"sv)) {
      refuse(file, fmt::format("holds {}, which is no npy array{}", show(member.name),
                               member.name.ends_with(".pkl"sv)
                                   ? ": it is a PyTorch file; save the weights as safetensors"
                                   : ""));
    }
    const std::string name(member.name.substr(0, member.name.size() - 4));
    if (visitor.skips(name)) return;
    const std::int64_t data = data_of(file, member, directory.begin());
    Inflater inflater(data);
    NpyHeader header = read_npy_header(
        file.path().string() + ": " + show(member.name), member.bytes, most_array_header,
        [&](std::int64_t offset, void* to, std::int64_t bytes) {
          member.deflated ? inflater.read(file, offset, to, bytes) : file.read(data + offset, to, bytes);
        });
    header_bytes += header.bytes;
    if (header_bytes > max_header_bytes)
      refuse(file, fmt::format("its arrays' headers have more than {} bytes", max_header_bytes));
    header.info.name = name;
    check_name(file, header.info.name);
    Extent extent{.offset = data, .crc = member.crc, .has_crc = true};
    if (member.deflated) {
      extent.skipped = static_cast<std::uint32_t>(header.bytes);
    } else {
      const std::string text = read_text(file, data, header.bytes);
      extent.offset += header.bytes;
      extent.crc = crc32_of_rest(member.crc, crc32_after(0, text.data(), header.bytes), header.info.bytes);
    }
    visitor.tensor(header.info, extent);
  });
}

namespace {

constexpr std::int64_t local_extra_bytes = 20;  // 64-bit sizes, which numpy.savez has in every local header
constexpr std::int64_t all_ones = 0xFFFFFFFF;

void put(std::string& to, std::size_t bytes, std::int64_t value) {
  for (std::size_t i = 0; i < bytes; ++i) to += static_cast<char>((value >> (8 * i)) & 0xFF);
}

std::int64_t size_of_member(const NpzLayout::Member& member) {
  return static_cast<std::int64_t>(member.array_header.size()) + member.data_bytes;
}

/// 64-bit numbers that do not fit into the entry's own fields.
std::vector<std::int64_t> wide_fields(const NpzLayout::Member& member) {
  std::vector<std::int64_t> wide;
  if (size_of_member(member) >= all_ones) wide = {size_of_member(member), size_of_member(member)};
  if (member.local >= all_ones) wide.push_back(member.local);
  return wide;
}

std::int64_t entry_size(const NpzLayout::Member& member) {
  const auto wide = static_cast<std::int64_t>(wide_fields(member).size());
  return entry_bytes + static_cast<std::int64_t>(member.name.size()) + (wide > 0 ? 4 + 8 * wide : 0);
}

/// Version, flags (the name is UTF-8), method (stored), time and date (the first of 1980), CRC.
void put_start(std::string& to, std::uint32_t crc) {
  put(to, 2, 45);
  put(to, 2, 0x800);
  put(to, 2, 0);
  put(to, 2, 0);
  put(to, 2, 0x21);
  put(to, 4, crc);
}

std::string local_header(const NpzLayout::Member& member, std::uint32_t crc) {
  std::string text = "PK\x03\x04";
  put_start(text, crc);
  put(text, 4, all_ones);
  put(text, 4, all_ones);
  put(text, 2, static_cast<std::int64_t>(member.name.size()));
  put(text, 2, local_extra_bytes);
  text += member.name;
  put(text, 2, 1);
  put(text, 2, local_extra_bytes - 4);
  put(text, 8, size_of_member(member));
  put(text, 8, size_of_member(member));
  return text + member.array_header;
}

std::string directory_entry(const NpzLayout::Member& member, std::uint32_t crc) {
  const std::vector<std::int64_t> wide = wide_fields(member);
  std::string text = "PK\x01\x02";
  put(text, 2, 45);
  put_start(text, crc);
  put(text, 4, std::min(size_of_member(member), all_ones));
  put(text, 4, std::min(size_of_member(member), all_ones));
  put(text, 2, static_cast<std::int64_t>(member.name.size()));
  put(text, 2, wide.empty() ? 0 : static_cast<std::int64_t>(4 + 8 * wide.size()));
  put(text, 2, 0);  // comment
  put(text, 2, 0);  // disk
  put(text, 2, 0);
  put(text, 4, 0);
  put(text, 4, std::min(member.local, all_ones));
  text += member.name;
  if (!wide.empty()) {
    put(text, 2, 1);
    put(text, 2, static_cast<std::int64_t>(8 * wide.size()));
  }
  for (const std::int64_t value : wide) put(text, 8, value);
  return text;
}

/// The 64-bit end, its locator, and the end.
std::string end_of_archive(std::int64_t count, std::int64_t begin, std::int64_t bytes) {
  std::string text = "PK\x06\x06";
  put(text, 8, end64_bytes - 12);
  put(text, 2, 45);
  put(text, 2, 45);
  put(text, 8, 0);  // disks
  put(text, 8, count);
  put(text, 8, count);
  put(text, 8, bytes);
  put(text, 8, begin);
  text += "PK\x06\x07";
  put(text, 4, 0);
  put(text, 8, begin + bytes);
  put(text, 4, 1);
  text += "PK\x05\x06";
  put(text, 4, 0);
  constexpr std::int64_t most = 0xFFFF;
  put(text, 2, std::min(count, most));
  put(text, 2, std::min(count, most));
  put(text, 4, std::min(bytes, all_ones));
  put(text, 4, std::min(begin, all_ones));
  put(text, 2, 0);
  return text;
}

}  // namespace

NpzLayout npz_layout(std::span<const TensorInfo> tensors) {
  NpzLayout npz;
  std::set<std::string_view> names;
  std::int64_t end = 0;
  for (const TensorInfo& tensor : tensors) {
    constexpr std::size_t longest = 65000;
    if (tensor.name.find('\0') != std::string::npos || tensor.name.size() > longest ||
        !names.insert(tensor.name).second) {
      throw Error(
          Status::invalid_argument,
          fmt::format("tensor {}: this name is there twice, or cannot be one in an npz", show(tensor.name)));
    }
    Layout array = npy_layout(tensor);
    NpzLayout::Member member{.name = tensor.name + ".npy",
                             .array_header = std::move(array.header),
                             .local = end,
                             .data_bytes = array.bytes - array.offsets.front()};
    const auto before = local_bytes + local_extra_bytes +
                        static_cast<std::int64_t>(member.name.size() + member.array_header.size());
    npz.layout.offsets.push_back(end + before);
    if (__builtin_add_overflow(end + before, member.data_bytes, &end))
      throw Error(Status::invalid_argument, "the tensors have more than 2^63 - 1 bytes together");
    npz.members.push_back(std::move(member));
  }
  npz.directory = end;
  for (const NpzLayout::Member& member : npz.members) end += entry_size(member);
  npz.layout.bytes = end + end64_bytes + locator_bytes + end_bytes;
  return npz;
}

std::vector<std::pair<std::int64_t, std::string>> npz_headers(const NpzLayout& npz,
                                                              std::span<const std::uint32_t> crcs) {
  std::vector<std::pair<std::int64_t, std::string>> headers;
  std::string directory;
  for (std::size_t t = 0; t < npz.members.size(); ++t) {
    const NpzLayout::Member& member = npz.members[t];
    const uLong of_header =
        crc32_after(0, member.array_header.data(), static_cast<std::int64_t>(member.array_header.size()));
    const auto crc = static_cast<std::uint32_t>(::crc32_combine(of_header, crcs[t], member.data_bytes));
    headers.emplace_back(member.local, local_header(member, crc));
    directory += directory_entry(member, crc);
  }
  const auto bytes = static_cast<std::int64_t>(directory.size());
  directory += end_of_archive(static_cast<std::int64_t>(npz.members.size()), npz.directory, bytes);
  headers.emplace_back(npz.directory, std::move(directory));
  return headers;
}

}  // namespace bragg::detail
