// SPDX-License-Identifier: Apache-2.0
#include "host/cli/output.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdint>
#include <system_error>

#include "host/io/file.hpp"
#include "host/io/stream.hpp"

namespace bragg::cli {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void fail(const char* option, const fs::path& path, const std::string& why) {
  throw Error(Status::io_error, fmt::format("{}: {}: {}", option, path.string(), why));
}

bool is_model_name(const fs::path& path) { return is_values_name(path) || is_index_name(path); }

}  // namespace

bool is_values_name(const fs::path& path) {
  const fs::path extension = path.extension();
  return extension == ".safetensors" || extension == ".npz" || extension == ".npy";
}

bool is_index_name(const fs::path& path) { return path.filename().string().ends_with(".index.json"); }

void check_writable(const char* option, const fs::path& path) {
  if (path.empty()) throw Error(Status::invalid_argument, fmt::format("{}: the name is empty", option));
  if (detail::is_stream(path)) {
    of_option(option, [&] { detail::check_stream(path); });
    return;
  }
  const fs::path place = detail::follow_links(path);
  const fs::path folder = place.has_parent_path() ? place.parent_path() : fs::path(".");
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) fail(option, path, "its folder does not exist");
  const fs::file_status there = fs::status(place, ignored);
  if (fs::is_directory(there)) fail(option, path, "is a folder");
  if (fs::exists(there) && !fs::is_regular_file(there)) fail(option, path, "is not a regular file");
  if (access(folder.c_str(), W_OK) != 0) fail(option, path, "its folder cannot be written to");
}

std::unique_ptr<detail::OutputFile> write_unnamed(const char* option, const fs::path& path,
                                                  const MakeText& make) {
  return of_option(option, [&]() -> std::unique_ptr<detail::OutputFile> {
    if (detail::is_stream(path)) {
      detail::OutputStream stream(path);
      make([&](std::string_view text) { stream.write(text); });
      stream.close();
      return nullptr;
    }
    auto file = std::make_unique<detail::OutputFile>(path, 0);
    std::int64_t end = 0;
    make([&](std::string_view text) {
      file->write(end, text.data(), static_cast<std::int64_t>(text.size()));
      end += static_cast<std::int64_t>(text.size());
    });
    return file;
  });
}

void write_whole(const char* option, const fs::path& path, const std::string& text) {
  const auto file = write_unnamed(option, path, [&](const Put& put) { put(text); });
  if (file) of_option(option, [&] { file->commit(); });
}

bool leads_to_input(const fs::path& path, const fs::path& input) {
  if (detail::same_place(path, input)) return true;
  // A folder, or an index, stands for the files beside each other there.
  std::error_code ignored;
  const bool is_folder = fs::is_directory(input, ignored);
  if (!is_folder && input.extension() != ".json") return false;
  const fs::path folder = is_folder ? input : input.has_parent_path() ? input.parent_path() : fs::path(".");
  const fs::path place = detail::follow_links(path);
  const fs::path parent = place.has_parent_path() ? place.parent_path() : fs::path(".");
  if (is_model_name(place) && detail::same_place(parent, folder)) return true;
  // Files there may be links to others elsewhere.
  for (fs::directory_iterator entry(folder, ignored), end; entry != end; entry.increment(ignored)) {
    if (is_model_name(entry->path()) && fs::equivalent(entry->path(), path, ignored)) return true;
  }
  return false;
}

void check_place(const char* option, const fs::path& path, const std::optional<fs::path>& base,
                 const std::vector<fs::path>& given, const std::vector<fs::path>& inputs) {
  check_writable(option, path);
  const auto refuse = [&](const std::string& why) {
    throw Error(Status::invalid_argument, fmt::format("{}: {} {}", option, path.string(), why));
  };
  if (base && leads_to_input(path, *base)) refuse("is a file of --base");
  const auto check = [&](const fs::path& input) {
    std::error_code ignored;
    const char* const is = fs::exists(path, ignored) ? "is" : "would be";
    if (leads_to_input(path, input)) refuse(fmt::format("{} a file of the input {}", is, input.string()));
  };
  for (const fs::path& input : inputs) check(input);
  for (const fs::path& input : given) check(input);  // a folder of workers
}

}  // namespace bragg::cli
