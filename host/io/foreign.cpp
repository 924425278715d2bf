// SPDX-License-Identifier: Apache-2.0
#include "host/io/foreign.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

namespace bragg::detail {

namespace {

using namespace std::string_view_literals;
using Format = std::pair<std::string_view, std::string_view>;  // how it begins, and what it is

constexpr std::string_view pickle =
    "is a Python pickle, as old PyTorch files are: to read it may run code that is in it; save the weights "
    "as safetensors (safetensors.torch.save_file)";
constexpr std::string_view torch_zip =
    "is a PyTorch file (.pt, .bin), a zip archive with a pickle: to read it may run code that is in it; save "
    "the weights as safetensors (safetensors.torch.save_file)";
constexpr std::string_view html =
    "is an HTML page, perhaps the error page of a download; download the file again";

constexpr std::array formats = {
    Format{"\x1f\x8b"sv, "is compressed with gzip; decompress it first"},
    Format{"\x28\xb5\x2f\xfd"sv, "is compressed with Zstandard; decompress it first"},
    Format{"\xfd\x37zXZ\0"sv, "is compressed with xz; decompress it first"},
    Format{"BZh"sv, "is compressed with bzip2; decompress it first"},
    Format{"GGUF"sv,
           "is a GGUF file, whose weights are mostly quantised; give the safetensors that it was made from"},
    Format{"\x89HDF\r\n"sv, "is an HDF5 file; save the weights as safetensors"},
    Format{"\x93NUMPY"sv, "is an npy array; name it .npy"},
    Format{"\x80\x02"sv, pickle},
    Format{"\x80\x03"sv, pickle},
    Format{"\x80\x04"sv, pickle},
    Format{"\x80\x05"sv, pickle},
    Format{"(dp0\n"sv, pickle},
    Format{"(lp0\n"sv, pickle},
};

// Text: in either case, behind blanks and a byte order mark.
constexpr std::array texts = {
    Format{"version https://git-lfs"sv,
           "is a git-lfs pointer in place of the file; fetch the file: git lfs pull"},
    Format{"<!doctype html"sv, html},
    Format{"<html"sv, html},
    Format{"<head"sv, html},
    Format{"<?xml"sv, "is XML, perhaps a store's answer to a download that failed; download the file again"},
    Format{"<error>"sv,
           "is XML, perhaps a store's answer to a download that failed; download the file again"},
    Format{"{"sv, "is JSON text, no weights; the index of a sharded model is named *.index.json"},
};

std::string zip_format(std::string_view begin) {
  constexpr std::size_t name_at = 30;  // of the first file in the archive
  const std::string_view name = begin.size() > name_at ? begin.substr(name_at) : ""sv;
  if (name.find("data.pkl") != std::string_view::npos) return std::string(torch_zip);
  if (name.find(".npy") != std::string_view::npos) return "";  // an npz
  return "is a zip archive; give the files in it";
}

std::string text_format(std::string_view begin) {
  if (begin.starts_with("\xef\xbb\xbf"sv)) begin.remove_prefix(3);
  begin.remove_prefix(std::min(begin.find_first_not_of(" \t\r\n"), begin.size()));
  std::string lower(begin);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  for (const auto& [start, what] : texts) {
    if (lower.starts_with(start)) return std::string(what);
  }
  return "";
}

}  // namespace

std::string foreign_format(std::string_view begin) {
  if (begin.starts_with("PK\x03\x04"sv)) return zip_format(begin);
  for (const auto& [magic, what] : formats) {
    if (begin.starts_with(magic)) return std::string(what);
  }
  return text_format(begin);
}

void refuse_foreign(const ReadFile& file) {
  std::string begin(static_cast<std::size_t>(std::min<std::int64_t>(file.size(), 128)), '\0');
  file.read(0, begin.data(), static_cast<std::int64_t>(begin.size()));
  if (const std::string other = foreign_format(begin); !other.empty()) throw_bad_file(file.path(), other);
}

}  // namespace bragg::detail
