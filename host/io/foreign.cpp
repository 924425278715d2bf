// SPDX-License-Identifier: Apache-2.0
#include "host/io/foreign.hpp"

#include <array>
#include <utility>

namespace bragg::detail {

namespace {

using namespace std::string_view_literals;

constexpr std::array<std::pair<std::string_view, std::string_view>, 12> formats = {{
    {"version https://git-lfs"sv, "is a git-lfs pointer in place of the file; fetch the file: git lfs pull"},
    {"<!DOCTYPE"sv, "is an HTML page, perhaps the error page of a download; download the file again"},
    {"<!doctype"sv, "is an HTML page, perhaps the error page of a download; download the file again"},
    {"<html"sv, "is an HTML page, perhaps the error page of a download; download the file again"},
    {"\x1f\x8b"sv, "is compressed with gzip; decompress it first"},
    {"\x28\xb5\x2f\xfd"sv, "is compressed with Zstandard; decompress it first"},
    {"GGUF"sv,
     "is a GGUF file, whose weights are mostly quantised; give the safetensors that it was made from"},
    {"\x89HDF\r\n"sv, "is an HDF5 file; save the weights as safetensors"},
    {"\x80\x02"sv, ""},
    {"\x80\x03"sv, ""},
    {"\x80\x04"sv, ""},
    {"\x80\x05"sv, ""},
}};

constexpr std::string_view pickle =
    "is a Python pickle, as old PyTorch files are: to read it may run code that is in it; save the weights "
    "as "
    "safetensors (safetensors.torch.save_file)";

std::string zip_format(std::string_view begin) {
  constexpr std::size_t name_at = 30;  // of the first file in the archive
  const std::string_view name = begin.size() > name_at ? begin.substr(name_at) : ""sv;
  if (name.find("data.pkl") != std::string_view::npos) {
    return "is a PyTorch file (.pt, .bin), a zip archive with a pickle: to read it may run code that is in "
           "it; "
           "save the weights as safetensors (safetensors.torch.save_file)";
  }
  if (name.find(".npy") != std::string_view::npos)
    return "is an npz archive; save its arrays as one safetensors file (safetensors.numpy.save_file)";
  return "is a zip archive; give the files in it";
}

}  // namespace

std::string foreign_format(std::string_view begin) {
  if (begin.starts_with("PK\x03\x04"sv)) return zip_format(begin);
  for (const auto& [magic, what] : formats) {
    if (begin.starts_with(magic)) return std::string(what.empty() ? pickle : what);
  }
  return "";
}

}  // namespace bragg::detail
