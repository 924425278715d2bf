// SPDX-License-Identifier: Apache-2.0
#include "host/files/inputs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "host/base/listed.hpp"
#include "host/files/tensor_choice.hpp"
#include "host/io/element_type.hpp"

namespace bragg::detail {

namespace {

/// None where not even half of the models say the same.
std::optional<std::string> format_of_most(const Inputs& inputs) {
  std::map<std::optional<std::string>, std::size_t> votes;
  std::size_t voters = 0;
  for (const InputRow& row : inputs.rows) {
    if (!row.bad.empty() || row.left_out) continue;
    ++votes[inputs.models[row.model].format];
    ++voters;
  }
  for (const auto& [format, count] : votes) {
    if (2 * count > voters) return format;
  }
  return std::nullopt;
}

/// A glob and a name that lead to the same file are a slip, and the file would count twice against f.
void check_distinct(std::span<const std::filesystem::path> paths) {
  std::map<std::filesystem::path, const std::filesystem::path*> seen;
  for (const std::filesystem::path& path : paths) {
    const auto [found, added] = seen.emplace(std::filesystem::absolute(path).lexically_normal(), &path);
    if (!added) {
      throw Error(Status::invalid_argument,
                  fmt::format("inputs: {} and {} are the same file; give each worker's once",
                              found->second->string(), path.string()));
    }
  }
}

/// A 2-D npy alone holds a row per worker.
void add_matrix_rows(Inputs& inputs, TensorInfo& tensor) {
  const std::filesystem::path& path = inputs.models.front().path;
  const std::int64_t n = tensor.shape[0], d = tensor.shape[1];
  // Bounded before anything is made per row: an array of no columns may claim any number of rows.
  constexpr std::int64_t most = 1 << 20;
  if (n < 1 || n > most) {
    throw_bad_file(path, fmt::format("npy shape {}: expected 1 to {} rows, one per worker",
                                     shape_text(tensor.shape), most));
  }
  const std::int64_t bytes = tensor.bytes / n;
  tensor = {"", tensor.dtype, {d}, d, bytes};
  inputs.rows.clear();
  inputs.names.clear();
  for (std::int64_t i = 0; i < n; ++i) {
    inputs.rows.push_back({.model = 0, .offset = i * bytes, .bad = {}});
    inputs.names.push_back(fmt::format("{}[{}]", path.string(), i));
  }
  inputs.matrix = true;
}

void add_models(Inputs& inputs, std::span<const std::filesystem::path> paths,
                std::span<const double> weights) {
  // Of a wrong number of weights, and where none is left, the run itself tells.
  const bool some = weights.size() == paths.size() && paths.size() > 1 &&
                    std::any_of(weights.begin(), weights.end(), [](double weight) { return weight != 0; });
  for (const std::filesystem::path& path : paths) {
    const std::size_t i = inputs.models.size();
    inputs.rows.push_back({.model = i, .bad = {}, .left_out = some && weights[i] == 0});
    inputs.names.push_back(path.string());
    inputs.models.emplace_back(path);
  }
}

std::size_t voters(const Inputs& inputs) {
  return static_cast<std::size_t>(std::count_if(inputs.rows.begin(), inputs.rows.end(),
                                                [](const InputRow& row) { return !row.left_out; }));
}

/// Inputs whose forms have one mark.
struct Group {
  FormMark mark;
  std::vector<std::size_t> inputs;
};

/// The largest first; of equal ones that of the input that comes first.
std::vector<Group> group(const std::map<FormMark, std::vector<std::size_t>>& marked) {
  std::vector<Group> groups;
  for (const auto& [mark, inputs] : marked) groups.push_back({mark, inputs});
  std::sort(groups.begin(), groups.end(), [](const Group& a, const Group& b) {
    return std::pair(b.inputs.size(), a.inputs.front()) < std::pair(a.inputs.size(), b.inputs.front());
  });
  return groups;
}

/// In what the two largest groups differ. The smaller form is the one that is kept: it may be a stranger's.
std::string difference(const Inputs& inputs, const std::vector<Group>& groups, const Skips& skips) {
  if (groups.size() < 2) return "";
  std::size_t kept = groups[0].inputs.front(), other = groups[1].inputs.front();
  if (groups[0].mark.tensors > groups[1].mark.tensors) std::swap(kept, other);
  try {
    PlacedModel model(inputs.models[other].path);
    read_placed_model(read_form(inputs.models[kept].path, skips), inputs.names[kept], model, skips);
  } catch (const Error& error) {
    return fmt::format("; {}", error.what());
  }
  return "";
}

[[noreturn]] void refuse_forms(const Inputs& inputs, const std::vector<Group>& groups, const Skips& skips) {
  std::vector<std::string> texts;
  for (const Group& each : groups)
    texts.push_back(fmt::format("{} like {}", each.inputs.size(), inputs.names[each.inputs.front()]));
  for (std::size_t i = 0; i < inputs.rows.size(); ++i) {
    if (!inputs.rows[i].bad.empty())
      texts.push_back(fmt::format("{}: {}", inputs.names[i], inputs.rows[i].bad));
  }
  throw Error(
      Status::bad_file,
      fmt::format(
          "more than half of the {} inputs must agree in names, dtypes and shapes, or a base must say "
          "which are right (base): {}{}",
          voters(inputs), listed(texts, "; "), difference(inputs, groups, skips)));
}

/// Does it for a row; what it throws makes a bad row.
template <class F>
void try_row(Inputs& inputs, InputRow& row, const FileOptions& options, F f) {
  PlacedModel& model = inputs.models[row.model];
  if (!row.bad.empty() || row.left_out) return;
  try {
    f(model);
  } catch (const Error& error) {
    if (!is_bad_input(error)) throw;
    std::string reason = reason_of(error, model.path);
    if (options.found_bad) options.found_bad(row.model, inputs.names[row.model], reason);
    // Of one input there are no others to go on with.
    if (options.bad_inputs == BadInputs::error || inputs.models.size() == 1) throw;
    row.bad = std::move(reason);
  }
}

/// Groups the inputs by form. @throws Error bad_file: none has more than half.
std::vector<Group> find_groups(Inputs& inputs, const FileOptions& options, const Skips& skips) {
  std::map<FormMark, std::vector<std::size_t>> marked;
  for (std::size_t i = 0; i < inputs.rows.size(); ++i) {
    try_row(inputs, inputs.rows[i], options,
            [&](const PlacedModel& model) { marked[mark_form(model.path, skips)].push_back(i); });
  }
  std::vector<Group> groups = group(marked);
  if (groups.empty() || 2 * groups.front().inputs.size() <= voters(inputs))
    refuse_forms(inputs, groups, skips);
  return groups;
}

/// Fills the models of the rows that have the form.
void place_rows(Inputs& inputs, const Form& form, const std::string& owner, const FileOptions& options,
                const Skips& skips) {
  std::vector<std::shared_ptr<const std::vector<Place>>> distinct;
  for (InputRow& row : inputs.rows) {
    try_row(inputs, row, options, [&](PlacedModel& model) {
      read_placed_model(form, owner, model, skips);
      // Most are laid out alike: one table for all of them.
      const auto same = std::find_if(distinct.begin(), distinct.end(),
                                     [&](const auto& places) { return *places == *model.places; });
      if (same == distinct.end()) {
        distinct.push_back(model.places);
      } else {
        model.places = *same;
      }
    });
  }
}

PlacedModel read_base(const Form& form, const std::string& owner, const std::filesystem::path& path,
                      const Skips& skips) {
  PlacedModel base(path);
  read_placed_model(form, owner, base, skips);
  return base;
}

}  // namespace

bool is_bad_input(const Error& error) {
  return error.status() == Status::bad_file || error.status() == Status::io_error ||
         error.status() == Status::unsupported;
}

std::string reason_of(const Error& error, const std::filesystem::path& path) {
  std::string_view what = error.what();
  const std::string start = path.string() + ": ";
  if (what.starts_with(start)) what.remove_prefix(start.size());
  return std::string(what);
}

Inputs open_inputs(std::span<const std::filesystem::path> paths, const FileOptions& options) {
  if (paths.empty()) throw Error(Status::invalid_argument, "inputs: 0 files; needs at least 1");
  check_distinct(paths);
  const std::optional<std::filesystem::path>& base = options.base;
  TensorChoice choice(options);
  const Skips of_owner = choice.of_owner(), of_worker = choice.of_worker();
  Inputs inputs;
  add_models(inputs, paths, options.weights);
  Form form;
  const auto read_owner = [&](const std::filesystem::path& path) {
    form = read_form(path, of_owner);
    choice.check_form(form.tensors);
  };
  if (paths.size() == 1 && !choice.copies()) {
    try_row(inputs, inputs.rows.front(), options, [&](const PlacedModel& model) { read_owner(model.path); });
    place_rows(inputs, form, paths.front().string(), options, of_worker);
    const std::size_t dimensions = form.npy ? form.tensors.front().shape.size() : 0;
    if (dimensions > 2) {
      throw_bad_file(paths.front(), fmt::format("npy shape {}: one npy alone holds a row per worker in two "
                                                "dimensions; reshape it, or give a file per worker",
                                                shape_text(form.tensors.front().shape)));
    }
    if (dimensions == 2) add_matrix_rows(inputs, form.tensors.front());
    if (base) inputs.base = read_base(form, paths.front().string(), *base, of_worker);
  } else if (base) {
    read_owner(*base);
    inputs.base = read_base(form, base->string(), *base, of_owner);
    place_rows(inputs, form, base->string(), options, of_worker);
  } else {
    const std::vector<Group> groups = find_groups(inputs, options, of_worker);
    const std::string& owner = inputs.names[groups.front().inputs.front()];
    read_owner(owner);
    place_rows(inputs, form, owner, options, of_worker);
    const auto good = std::count_if(inputs.rows.begin(), inputs.rows.end(),
                                    [](const InputRow& row) { return row.bad.empty() && !row.left_out; });
    if (2 * static_cast<std::size_t>(good) <= voters(inputs)) refuse_forms(inputs, {}, of_worker);
  }
  choice.check_used(form.tensors);
  if (form.tensors.empty()) {
    throw_bad_file(base ? *base : paths.front(),
                   "holds no tensor, only metadata: there is nothing to aggregate");
  }
  inputs.npy = form.npy;
  inputs.tensors = std::move(form.tensors);
  for (std::size_t t = 0; t < inputs.tensors.size(); ++t) {
    const bool floating = element_type_of(inputs.tensors[t]).kind == ElementKind::floating;
    const bool copied = choice.is_copied(inputs.tensors[t].name);
    (copied ? inputs.copied : floating ? inputs.floating : inputs.integers).push_back(t);
  }
  inputs.format = inputs.base ? inputs.base->format : format_of_most(inputs);
  return inputs;
}

void RowReader::read(std::size_t t, std::int64_t begin, std::int64_t bytes, void* to) {
  if (bytes == 0) return;
  const Place& place = (*model_->places)[t];
  if (!file_ || open_ != place.file) {
    const SourceFile& source = model_->files[place.file];
    close();  // one descriptor at a time
    file_.emplace(source.path);
    open_ = place.file;
    if (file_->id() != source.id) throw_bad_file(source.path, "changed while it was being read");
  }
  const Extent& extent = place.extent;
  if (extent.skipped == 0) return file_->read(extent.offset + offset_ + begin, to, bytes);
  // Windows go forwards through a tensor, and so does it.
  if (!inflater_ || inflated_ != t) inflater_.emplace(extent.offset);
  inflated_ = t;
  inflater_->read(*file_, extent.skipped + begin, to, bytes);
  if (begin + bytes < tensors_[t].bytes) return;
  inflater_->finish(*file_, extent.crc);
  inflater_.reset();
}

void RowReader::close() {
  if (file_) file_->check_unchanged();
  file_.reset();
}

}  // namespace bragg::detail
