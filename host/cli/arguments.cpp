// SPDX-License-Identifier: Apache-2.0
#include "host/cli/arguments.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <fstream>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "host/cli/output.hpp"
#include "host/cli/text.hpp"
#include "host/io/file.hpp"
#include "host/io/form.hpp"
#include "host/io/model.hpp"
#include "rules/nearest.hpp"

namespace bragg::cli {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void refuse(const std::string& message) { throw Error(Status::invalid_argument, message); }

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

/// Of a stranger's text, what fits in a message.
std::string shown(std::string_view text) {
  constexpr std::size_t longest = 120;
  return text.size() <= longest ? std::string(text) : std::string(text.substr(0, longest)) + "…";
}

double parse_weight(std::string_view text, std::string_view where) {
  double value = 0;
  std::string_view digits = text;
  if (digits.starts_with('+') && !digits.starts_with("+-")) digits.remove_prefix(1);
  const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (code == std::errc::result_out_of_range) {
    refuse(fmt::format("--weights: {}: '{}' is beyond the range of a double, 4.9e-324 to 1.8e308", where,
                       shown(text)));
  }
  if (code != std::errc{} || end != digits.data() + digits.size()) {
    refuse(fmt::format("--weights: {}: '{}' is not a number", where, shown(text)));
  }
  return value;
}

/// A field of CSV, without its quotes.
std::string unquoted(std::string_view text) {
  if (text.size() < 2 || !text.starts_with('"') || !text.ends_with('"')) return std::string(text);
  std::string out;
  text = text.substr(1, text.size() - 2);
  for (std::size_t i = 0; i < text.size(); ++i) {
    out += text[i];
    if (text[i] == '"' && i + 1 < text.size() && text[i + 1] == '"') ++i;
  }
  return out;
}

/// A line of a file: a number, or a name before it.
void add_line(std::string_view line, int place, GivenWeights& given) {
  const std::string where = fmt::format("{}, line {}", given.file, place);
  const std::size_t gap = line.find_last_of(", \t");
  const std::string number = unquoted(gap == std::string_view::npos ? line : line.substr(gap + 1));
  std::string_view before = gap == std::string_view::npos ? std::string_view() : trimmed(line.substr(0, gap));
  if (before.ends_with(',')) before = trimmed(before.substr(0, before.size() - 1));  // "name, 3"
  const std::string name = unquoted(before);
  const bool first = given.values.empty();
  if (first && !name.empty() && (number == "weight" || number == "weights")) return;  // a table's heading
  const double value = parse_weight(number, where);
  if (gap != std::string_view::npos && name.empty())
    refuse(fmt::format("--weights: {}: the name is empty", where));
  if (!first && name.empty() != given.names.empty()) {
    refuse(fmt::format("--weights: {}: '{}' has {} name, but line {} has {}", where, shown(line),
                       name.empty() ? "no" : "a", given.lines.front(), name.empty() ? "one" : "none"));
  }
  given.values.push_back(value);
  given.lines.push_back(place);
  if (!name.empty()) given.names.push_back(name);
}

/// "a/b/" as "a/b".
fs::path plain(const fs::path& path) {
  const fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

/// Inputs by their paths and by their file names.
struct InputNames {
  explicit InputNames(const std::vector<fs::path>& all) : inputs(all) {
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const fs::path path = plain(inputs[i]);
      by_path.emplace(path, i);
      by_name[path.filename()].push_back(i);
    }
  }

  const std::vector<fs::path>& inputs;
  std::map<fs::path, std::size_t> by_path;
  std::map<fs::path, std::vector<std::size_t>> by_name;
};

/// The input that the k-th given name means, if there is one.
std::optional<std::size_t> input_of(const GivenWeights& given, std::size_t k, const InputNames& names) {
  const std::string& name = given.names[k];
  const std::string where = fmt::format("{}, line {}", given.file, given.lines[k]);
  if (const auto found = names.by_path.find(plain(name)); found != names.by_path.end()) return found->second;
  const fs::path file_name = fs::path(name).has_filename() ? fs::path(name) : fs::path(name).parent_path();
  if (const auto found = names.by_name.find(file_name); found != names.by_name.end()) {
    const std::vector<std::size_t>& same_name = found->second;
    if (same_name.size() == 1) return same_name.front();
    refuse(fmt::format("--weights: {}: '{}' is the name of {} and of {}; give their paths", where,
                       shown(name), names.inputs[same_name[0]].string(),
                       names.inputs[same_name[1]].string()));
  }
  return std::nullopt;
}

/// Of a name that no input has.
std::string unknown_text(const GivenWeights& given, std::size_t k, const InputNames& names) {
  std::vector<std::string> known;
  for (const auto& [known_name, indices] : names.by_name) known.push_back(known_name.string());
  const std::string_view meant =
      detail::nearest(given.names[k], known, [](const std::string& n) { return std::string_view(n); });
  return fmt::format("--weights: {}, line {}: no input has the path or the file name '{}'{}", given.file,
                     given.lines[k], shown(given.names[k]),
                     meant.empty() ? "" : fmt::format("; did you mean {}?", meant));
}

std::string read_text(const fs::path& path) {
  const auto fail = [&](const char* why) {
    throw Error(Status::io_error, fmt::format("--weights: cannot read {}: {}", path.string(), why));
  };
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) fail("it is a folder");
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(std::generic_category().message(errno).c_str());
  constexpr std::size_t most = 64 << 20;
  std::string text;
  while (in && text.size() <= most) {
    const std::size_t before = text.size();
    text.resize(before + (1 << 16));
    in.read(text.data() + before, 1 << 16);
    text.resize(before + static_cast<std::size_t>(in.gcount()));
  }
  if (in.bad()) fail("reading failed");
  if (text.size() > most) fail("it has more than 64 MiB");
  return text;
}

bool same_file(const fs::path& a, const fs::path& b) {
  std::error_code ignored;
  return fs::equivalent(a, b, ignored);
}

/// Whether a folder holds the files of a model, or of several.
bool holds_model(const fs::path& folder) {
  std::error_code ignored;
  for (fs::directory_iterator entry(folder, ignored), end; entry != end; entry.increment(ignored)) {
    const fs::path& path = entry->path();
    if (path.filename().string().starts_with('.')) continue;
    if (is_index_name(path) || path.extension() == ".safetensors") return true;
  }
  return false;
}

/// What is in a folder, in the order of names, without what is hidden and without the base.
struct Entries {
  std::vector<fs::path> files, indices, folders;
  std::vector<fs::path> lost;  ///< links that lead nowhere: to a worker's model once, perhaps
};

Entries list_entries(const fs::path& folder, const std::optional<fs::path>& base) {
  std::error_code code, ignored;
  std::vector<fs::path> paths;
  for (fs::directory_iterator entry(folder, code), end; !code && entry != end; entry.increment(code))
    paths.push_back(entry->path());
  if (code) throw Error(Status::io_error, fmt::format("{}: {}", folder.string(), code.message()));
  std::sort(paths.begin(), paths.end());
  Entries entries;
  for (const fs::path& path : paths) {
    if (path.filename().string().starts_with('.') || (base && same_file(path, *base))) continue;
    if (is_index_name(path)) {
      entries.indices.push_back(path);
    } else if (is_values_name(path)) {
      entries.files.push_back(path);
    } else if (fs::is_directory(path, ignored)) {
      if (!base || !same_file(path, base->parent_path())) entries.folders.push_back(path);
    } else if (fs::is_symlink(path, ignored) && !fs::exists(path, ignored)) {
      entries.lost.push_back(path);
    }
  }
  return entries;
}

/// The files of a sharded model, and whether each tensor is in one of them only.
class PartsVisitor final : public detail::ModelVisitor {
 public:
  bool takes_any_dtype() const override { return true; }
  void tensor(TensorInfo& info, const detail::Extent&) override {
    names_.push_back(detail::mark_of(info).name);
  }
  bool is_one_model() {
    std::sort(names_.begin(), names_.end());
    return std::adjacent_find(names_.begin(), names_.end()) == names_.end();
  }

 private:
  std::vector<std::uint64_t> names_;
};

/// Whether an index says of all files that they are parts of one model. What a worker's index says of others'
/// files does not count: those hold the same tensors.
bool are_parts(const std::vector<fs::path>& files, const std::vector<fs::path>& indices) {
  return std::any_of(indices.begin(), indices.end(), [&](const fs::path& index) {
    PartsVisitor visitor;
    try {
      detail::visit_model(index, visitor);
    } catch (const Error&) {  // nothing says that what follows belongs to it
    }
    std::set<fs::path> parts;
    for (const detail::SourceFile& part : visitor.files) parts.insert(part.path.filename());
    return visitor.is_one_model() && std::all_of(files.begin(), files.end(), [&](const fs::path& file) {
             return parts.contains(file.filename());
           });
  });
}

/// The workers' files and model folders in a folder; none where it is one model itself. Each of them may be a
/// stranger's, so none decides what the others are.
std::vector<fs::path> workers_of(const fs::path& folder, const std::optional<fs::path>& base, bool quiet) {
  Entries entries = list_entries(folder, base);
  std::vector<fs::path>& workers = entries.files;
  const auto is_shard = [](const fs::path& file) { return detail::is_shard(file.filename().string()); };
  if (!entries.indices.empty()) {
    const bool broken = std::all_of(workers.begin(), workers.end(), is_shard);
    if (workers.size() < 2 || broken || are_parts(workers, entries.indices)) return {};
  }
  const auto add = [&](const std::vector<fs::path>& more) {
    workers.insert(workers.end(), more.begin(), more.end());
  };
  add(entries.indices);
  const bool has_models = std::any_of(entries.folders.begin(), entries.folders.end(), holds_model);
  if (workers.empty() && !has_models) {
    refuse(
        fmt::format("{}: holds no *.safetensors, *.npy or *.npz file of a worker, and no folder with a model",
                    folder.string()));
  }
  // Beside files a folder may be anything.
  if (!workers.empty())
    std::erase_if(entries.folders, [](const fs::path& each) { return !holds_model(each); });
  if (workers.empty()) {
    add(entries.lost);
  } else if (!entries.folders.empty() && !quiet) {
    const std::string what =
        fmt::format("{} holds {} and {}: files and folders with models all count as workers", folder.string(),
                    workers.front().filename().string(), entries.folders.front().filename().string());
    fmt::print(stderr, "bragg: warning: {}\n", printable(what));
  }
  add(entries.folders);
  std::sort(workers.begin(), workers.end());
  return std::move(workers);
}

}  // namespace

Error with_option_names(const Error& error) {
  std::string what = error.what();
  for (const auto& [field, option] :
       {std::pair("judge_by", "--judge-by"), std::pair("ignore_in_distances", "--ignore-in-distances"),
        std::pair("exclude", "--exclude"), std::pair("copy", "--copy"), std::pair("partial", "--partial"),
        std::pair("base", "--base"), std::pair("inputs", "INPUT"), std::pair("server", "--server-lr")}) {
    const std::string start = std::string(field) + ": ";
    if (what.starts_with(start)) return {error.status(), option + what.substr(start.size() - 2)};
  }
  if (what.starts_with("server_")) {  // "server_tau = 0; needs …", "server_state: …"
    std::replace(what.begin(), what.begin() + static_cast<std::ptrdiff_t>(what.find_first_of(" :")), '_',
                 '-');
    what.insert(0, "--");
  }
  constexpr std::string_view base = "which are right (base)";
  if (const std::size_t at = what.find(base); error.status() == Status::bad_file && at != std::string::npos)
    what.replace(at, base.size(), "which are right (--base)");
  for (const auto& [field, option] :
       {std::pair<std::string_view, const char*>("(allow_nonfinite)", "(--allow-nonfinite)"),
        std::pair<std::string_view, const char*>("(out_dtype)", "(--out-dtype)")}) {
    if (what.ends_with(field)) what.replace(what.size() - field.size(), field.size(), option);
  }
  return {error.status(), what};
}

std::uint64_t parse_bytes(const char* option, std::string_view text) {
  struct Unit {
    std::string_view name;
    double bytes;
  };
  constexpr std::array<Unit, 11> units = {{{"", 1},
                                           {"B", 1},
                                           {"kB", 1e3},
                                           {"KB", 1e3},
                                           {"MB", 1e6},
                                           {"GB", 1e9},
                                           {"TB", 1e12},
                                           {"KiB", 0x1p10},
                                           {"MiB", 0x1p20},
                                           {"GiB", 0x1p30},
                                           {"TiB", 0x1p40}}};
  double value = 0;
  const auto [end, code] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::general);
  const std::string_view rest = trimmed(text.substr(static_cast<std::size_t>(end - text.data())));
  const auto* const unit =
      std::find_if(units.begin(), units.end(), [&](const Unit& u) { return u.name == rest; });
  if (code != std::errc{} || unit == units.end() || !(value >= 0)) {
    refuse(fmt::format("{}: '{}' is not an amount; write e.g. 512MiB, 1GiB or 500MB", option, text));
  }
  if (!(value * unit->bytes < 0x1p63)) {
    refuse(fmt::format("{}: '{}' is too large; needs less than 8388608TiB (2^63 bytes)", option, text));
  }
  return static_cast<std::uint64_t>(value * unit->bytes);
}

GivenWeights parse_weights(const std::string& text) {
  if (text.empty()) refuse("--weights: is empty; give numbers or @FILE, or leave the option out");
  const bool from_file = text.starts_with('@');
  const std::string read = from_file ? read_text(text.substr(1)) : "";
  std::string_view rest = from_file ? std::string_view(read) : std::string_view(text);
  if (from_file && rest.starts_with("\xef\xbb\xbf")) rest.remove_prefix(3);  // a byte order mark
  const char separator = from_file ? '\n' : ',';
  GivenWeights given;
  given.file = from_file ? text.substr(1) : "";
  int place = 0;
  for (bool more = true; more;) {
    const std::size_t end = rest.find(separator);
    const std::string_view item = trimmed(rest.substr(0, end));
    more = end != std::string_view::npos;
    if (more) rest.remove_prefix(end + 1);
    ++place;
    if (!from_file) {
      given.values.push_back(parse_weight(item, fmt::format("item {}", place)));
    } else if (!item.empty() && !item.starts_with('#')) {
      add_line(item, place, given);
    }
  }
  if (given.values.empty()) refuse(fmt::format("--weights: {} holds no number", given.file));
  if (std::none_of(given.values.begin(), given.values.end(),
                   [](double w) { return w > 0 && std::isfinite(w); })) {
    refuse(fmt::format("--weights: none of the {} is a positive, finite number", given.values.size()));
  }
  return given;
}

std::vector<double> match_weights(const GivenWeights& given, const std::vector<fs::path>& inputs,
                                  std::string& warning) {
  if (given.names.empty()) return given.values;
  constexpr std::size_t none = static_cast<std::size_t>(-1);
  std::vector<std::size_t> found(inputs.size(), none);  // which of the given weights
  const InputNames names(inputs);
  std::vector<std::size_t> unknown;
  for (std::size_t k = 0; k < given.names.size(); ++k) {
    const std::optional<std::size_t> i = input_of(given, k, names);
    if (!i) {
      unknown.push_back(k);
      continue;
    }
    if (found[*i] != none) {
      refuse(fmt::format("--weights: {}, lines {} and {}: both are of {}", given.file, given.lines[found[*i]],
                         given.lines[k], inputs[*i].string()));
    }
    found[*i] = k;
  }
  if (!unknown.empty()) {
    warning = unknown_text(given, unknown.front(), names);
    if (std::find(found.begin(), found.end(), none) != found.end()) refuse(warning);  // perhaps that one's
    if (unknown.size() > 1) warning += fmt::format("; and {} more like it", unknown.size() - 1);
  }
  std::vector<double> weights;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (found[i] == none) {
      refuse(fmt::format("--weights: {} has no line for {}; a worker without a say has the weight 0",
                         given.file, inputs[i].string()));
    }
    weights.push_back(given.values[found[i]]);
  }
  return weights;
}

namespace {

/// The folder that an output would lie in.
fs::path folder_of_output(const fs::path& output) {
  fs::path path = detail::follow_links(output);
  if (!path.has_filename()) path = path.parent_path();  // a slash at the end
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

/// @throws Error invalid_argument: an output would be taken for a part of a worker's model next time.
void check_among_models(std::span<const fs::path> inputs, const std::optional<fs::path>& output) {
  if (!output) return;
  const fs::path parent = folder_of_output(*output);
  std::error_code ignored;
  for (const fs::path& input : inputs) {
    if (!fs::is_directory(input, ignored) || !same_file(parent, input)) continue;
    refuse(
        fmt::format("--output: {} would lie in {}, and belong to that worker's model next time; write it to "
                    "another folder",
                    output->string(), input.string()));
  }
}

}  // namespace

std::vector<fs::path> find_inputs(const std::vector<fs::path>& given, const std::optional<fs::path>& base,
                                  const std::optional<fs::path>& output, bool quiet) {
  std::error_code ignored;
  if (given.size() != 1 || !fs::is_directory(given.front(), ignored)) {
    check_among_models(given, output);
    return given;
  }
  const fs::path& folder = given.front();
  std::vector<fs::path> found = workers_of(folder, base, quiet);
  if (found.empty()) return given;
  // One file is a model, which its folder stands for.
  if (found.size() == 1 && !fs::is_directory(found.front(), ignored)) return given;
  check_among_models(found, output);
  if (output && same_file(folder_of_output(*output), folder)) {
    refuse(
        fmt::format("--output: what is written to {} would lie among the workers' files, and be one of them "
                    "next time; write "
                    "it to another folder",
                    folder.string()));
  }
  return found;
}

}  // namespace bragg::cli
