// SPDX-License-Identifier: Apache-2.0
#include "host/files/inputs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <tuple>
#include <utility>

#include "host/base/listed.hpp"
#include "host/files/tensor_choice.hpp"
#include "host/files/tensor_tally.hpp"
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
    if (path.empty()) {
      throw Error(Status::invalid_argument,
                  fmt::format("inputs: the name of input {} of {} is empty; leave it out, or give its path",
                              &path - paths.data() + 1, paths.size()));
    }
    std::filesystem::path normal = std::filesystem::absolute(path).lexically_normal();
    if (!normal.has_filename()) normal = normal.parent_path();  // a slash at the end
    const auto [found, added] = seen.emplace(std::move(normal), &path);
    if (!added) {
      throw Error(Status::invalid_argument,
                  fmt::format("inputs: {} and {} are the same file; give each worker's once",
                              found->second->string(), path.string()));
    }
  }
  for (const auto& [normal, path] : seen) {
    const auto folder = seen.find(normal.parent_path());
    if (folder == seen.end()) continue;
    throw Error(Status::invalid_argument,
                fmt::format("inputs: {} is in {}, which is given as a model, too; give each worker's once",
                            path->string(), folder->second->string()));
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

/// `what` has a place for the number of inputs.
[[noreturn]] void refuse(const Inputs& inputs, fmt::string_view what, const std::vector<Group>& groups,
                         const std::string& difference) {
  std::vector<std::string> texts;
  for (const Group& each : groups)
    texts.push_back(fmt::format("{} like {}", each.inputs.size(), inputs.names[each.inputs.front()]));
  for (std::size_t i = 0; i < inputs.rows.size(); ++i) {
    if (!inputs.rows[i].bad.empty())
      texts.push_back(fmt::format("{}: {}", inputs.names[i], inputs.rows[i].bad));
  }
  throw Error(Status::bad_file, fmt::format("{}{}{}{}", fmt::format(fmt::runtime(what), voters(inputs)),
                                            texts.empty() ? "" : ": ", listed(texts, "; "), difference));
}

[[noreturn]] void refuse_forms(const Inputs& inputs, const std::vector<Group>& groups,
                               const FileOptions& options, const Skips& skips) {
  const auto tell = [&](const Group& each, std::size_t i) {
    const std::string& first = inputs.names[each.inputs.front()];
    options.found_bad(
        i, inputs.names[i],
        fmt::format("its form is that of {} of {} inputs ({}), not of more than half", each.inputs.size(),
                    voters(inputs), each.inputs.size() == 1 ? "its own" : "as " + first));
  };
  if (options.found_bad && groups.size() > 1) {
    for (const Group& each : groups) {
      for (const std::size_t i : each.inputs) tell(each, i);
    }
  }
  refuse(
      inputs,
      "more than half of the {} inputs must agree in names, dtypes and shapes, or a base must say which are "
      "right (base)",
      groups, difference(inputs, groups, skips));
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
    refuse_forms(inputs, groups, options, skips);
  return groups;
}

/// The form of the group's inputs, as the first of them has it that has not changed since, and its name.
/// @throws Error bad_file: there is none any more.
std::pair<Form, std::string> read_agreed(Inputs& inputs, const Group& group, const FileOptions& options,
                                         const Skips& skips) {
  for (const std::size_t i : group.inputs) {
    std::optional<Form> found;
    try_row(inputs, inputs.rows[i], options, [&](const PlacedModel& model) {
      Form form = read_form(model.path, skips);
      if (mark_of(form) != group.mark) throw_bad_file(model.path, "changed while it was being read");
      found = std::move(form);
    });
    if (found) return {std::move(*found), inputs.names[i]};
  }
  refuse_forms(inputs, {}, options, skips);
}

/// Fills the models of the rows that have the form; with `others`, or some of it.
void place_rows(Inputs& inputs, const Form& form, const std::string& owner, const FileOptions& options,
                const Skips& skips, OtherTensors* others = nullptr) {
  std::vector<std::shared_ptr<const std::vector<Place>>> distinct;
  for (InputRow& row : inputs.rows) {
    try_row(inputs, row, options, [&](PlacedModel& model) {
      OtherTensors of_model;
      read_placed_model(form, owner, model, skips, others != nullptr ? &of_model : nullptr);
      if (others != nullptr) others->merge(std::move(of_model));
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

// Partial models
// -------------------------------------------------------------------------------------------------------------

bool has_floating_values(const TensorInfo& tensor) {
  return tensor.elements > 0 && element_type_of(tensor).kind == ElementKind::floating;
}

/// A tensor of some inputs, and in which dtypes and shapes how many hold it.
struct Held {
  std::string name;
  std::size_t inputs = 0;
  std::map<std::string, std::size_t> forms;  ///< by "F32 [2, 3]"
  bool floating = false;                     ///< one of them holds floating-point values
};

/// Those first that most hold.
std::vector<Held> count_holders(Inputs& inputs, const OtherTensors& tensors, const FileOptions& options,
                                const Skips& skips) {
  std::map<std::uint64_t, Held> found;
  for (InputRow& row : inputs.rows) {
    if (tensors.names.empty()) break;
    std::map<std::uint64_t, std::pair<std::string, bool>> here;
    try_row(inputs, row, options, [&](const PlacedModel& model) {
      visit_tensors(model.path, skips, [&](TensorInfo& tensor) {
        const std::uint64_t name = mark_of(tensor).name;
        if (!tensors.names.contains(name)) return;
        here.emplace(name, std::pair(fmt::format("{} {}", tensor.dtype, shape_text(tensor.shape)),
                                     has_floating_values(tensor)));
      });
    });
    if (!row.bad.empty()) continue;
    for (const auto& [name, form] : here) {
      Held& held = found[name];
      held.name = tensors.names.at(name);
      ++held.inputs;
      ++held.forms[form.first];
      held.floating = held.floating || form.second;
    }
  }
  std::vector<Held> order;
  for (auto& [name, held] : found) order.push_back(std::move(held));
  std::sort(order.begin(), order.end(), [](const Held& a, const Held& b) {
    return std::pair(b.inputs, std::string_view(a.name)) < std::pair(a.inputs, std::string_view(b.name));
  });
  return order;
}

/// "F32 [2, 3] by 4, F32 [3, 3] by 5".
std::string text_of(const std::map<std::string, std::size_t>& forms) {
  std::vector<std::string> texts;
  for (const auto& [form, count] : forms) texts.push_back(fmt::format("{} by {}", form, count));
  return listed(texts);
}

std::string held_by(const Inputs& inputs, std::size_t holders) {
  return fmt::format("held by {} of {} inputs", holders, voters(inputs));
}

/// The form has no such tensor; how many hold it, and in what dtypes and shapes.
DroppedTensor dropped(const Inputs& inputs, const Held& held) {
  std::string reason = held_by(inputs, held.inputs);
  if (inputs.base) {
    reason += ", but not by the base";
  } else if (2 * held.inputs <= voters(inputs)) {
    reason += ", not by more than half";
  } else {
    reason += ", but not by more than half in one dtype and shape: " + text_of(held.forms);
  }
  return {held.name, held.inputs, std::move(reason)};
}

/// Those that some inputs hold: of each input as many as OtherTensors has.
std::vector<Held> count_holders(Inputs& inputs, const FileOptions& options, const Skips& skips) {
  OtherTensors tensors;
  for (InputRow& row : inputs.rows) {
    OtherTensors here;
    try_row(inputs, row, options, [&](const PlacedModel& model) {
      visit_tensors(model.path, skips, [&](TensorInfo& tensor) { here.add(tensor.name); });
    });
    tensors.merge(std::move(here));
  }
  return count_holders(inputs, tensors, options, skips);
}

/// There is nothing to aggregate that more than half of the inputs hold in one dtype and shape.
[[noreturn]] void refuse_partial(const Inputs& inputs, const std::vector<Held>& held,
                                 const char* what = "tensor") {
  std::string example;
  if (!held.empty()) {
    const auto floating =
        std::find_if(held.begin(), held.end(), [](const Held& each) { return each.floating; });
    const Held& most = floating != held.end() ? *floating : held.front();
    example = fmt::format("; tensor {} is {}: {}", show(most.name), held_by(inputs, most.inputs),
                          text_of(most.forms));
    if (most.forms.size() > 1)
      example += "; adapters of different ranks have no average: train all with one rank";
  }
  const std::string text =
      fmt::format("no {} is held by more than half of the {{}} inputs in one dtype and shape, ", what) +
      "and a base must say which are right (base)";
  refuse(inputs, text, {}, example);
}

/// @throws Error bad_file: no tensor is agreed on, or none but counters, which are no model without what more
/// than half of the inputs hold besides.
void check_agreed(Inputs& inputs, const Form& form, const FileOptions& options, const Skips& skips) {
  if (std::any_of(form.tensors.begin(), form.tensors.end(), has_floating_values)) return;
  const std::vector<Held> held = count_holders(inputs, options, skips);
  const bool disputed = std::any_of(held.begin(), held.end(), [&](const Held& each) {
    return each.floating && 2 * each.inputs > voters(inputs);
  });
  if (form.tensors.empty()) refuse_partial(inputs, held);
  if (disputed) refuse_partial(inputs, held, "floating-point tensor");
}

/// Of how many tensors each row's model is, those of few first: (tensors, row).
/// @throws Error invalid_argument: more than half are npys.
std::vector<std::pair<std::uint64_t, std::size_t>> count_tensors(Inputs& inputs, const FileOptions& options,
                                                                 const Skips& skips) {
  std::vector<std::pair<std::uint64_t, std::size_t>> counts;
  std::vector<std::size_t> arrays;
  for (std::size_t i = 0; i < inputs.rows.size(); ++i) {
    std::uint64_t tensors = 0;
    bool npy = false;
    try_row(inputs, inputs.rows[i], options, [&](const PlacedModel& model) {
      npy = visit_tensors(model.path, skips, [&](TensorInfo&) { ++tensors; });
    });
    if (!inputs.rows[i].bad.empty() || inputs.rows[i].left_out) continue;
    if (npy) {
      arrays.push_back(i);
    } else {
      counts.emplace_back(tensors, i);
    }
  }
  if (2 * arrays.size() > voters(inputs)) {
    throw Error(Status::invalid_argument,
                fmt::format("partial: {} is an npy, which has no tensors to hold some of",
                            inputs.names[arrays.front()]));
  }
  for (const std::size_t i : arrays) {
    try_row(inputs, inputs.rows[i], options, [&](const PlacedModel& model) {
      throw_bad_file(model.path, "is an npy: its array has no name by which others could hold it");
    });
  }
  std::sort(counts.begin(), counts.end());
  return counts;
}

/// The tensors that more than half of the inputs hold in one dtype and shape; there may be none. The number
/// of all that were looked at goes to `seen`.
Form agree_on_tensors(Inputs& inputs, const FileOptions& options, const Skips& skips, std::uint64_t& seen) {
  const auto counts = count_tensors(inputs, options, skips);
  TensorTally tally(voters(inputs), counts.size());
  for (const auto& each : counts) {
    const std::uint64_t count = each.first;
    const std::size_t i = each.second;
    tally.begin();
    try_row(inputs, inputs.rows[i], options, [&](const PlacedModel& model) {
      std::uint64_t left = count;
      visit_tensors(model.path, skips, [&](TensorInfo& tensor) {
        if (left-- == 0) throw_bad_file(model.path, "changed while it was being read");
        tally.take(mark_of(tensor));
      });
      if (const auto twice = tally.end()) {
        visit_tensors(model.path, skips, [&](TensorInfo& tensor) {
          if (mark_of(tensor).name == *twice)
            throw_bad_file(model.path, fmt::format("tensor {}: is there twice", show(tensor.name)));
        });
        throw_bad_file(model.path, "changed while it was being read");
      }
    });
    seen += count;
  }
  std::vector<TensorMark> wanted = tally.agreed();
  Form form;
  for (InputRow& row : inputs.rows) {
    if (wanted.empty()) break;
    try_row(inputs, row, options, [&](const PlacedModel& model) {
      visit_tensors(model.path, skips, [&](TensorInfo& tensor) {
        const TensorMark mark = mark_of(tensor);
        const auto at = std::lower_bound(wanted.begin(), wanted.end(), mark);
        if (at == wanted.end() || *at != mark) return;
        wanted.erase(at);
        form.tensors.push_back(std::move(tensor));
      });
    });
  }
  std::sort(form.tensors.begin(), form.tensors.end(),
            [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  for (const TensorInfo& tensor : form.tensors) {
    const ElementType* const type = find_element_type(tensor.dtype);
    if (type != nullptr && (type->kind != ElementKind::foreign || tensor.bytes == 0)) continue;
    throw Error(Status::bad_file,
                fmt::format("tensor {}: more than half of the inputs hold it, and dtype {} cannot be "
                            "aggregated; exclude it",
                            show(tensor.name), tensor.dtype));
  }
  return form;
}

/// Does it; what is wrong with the base is told as such.
template <class F>
auto about_base(F f) {
  try {
    return f();
  } catch (const Error& error) {
    if (!is_bad_input(error)) throw;
    throw Error(error.status(), fmt::format("base: {}", error.what()));
  }
}

PlacedModel read_base(const Form& form, const std::string& owner, const std::filesystem::path& path,
                      const Skips& skips) {
  return about_base([&] {
    PlacedModel base(path);
    read_placed_model(form, owner, base, skips);
    return base;
  });
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

Inputs open_inputs(std::span<const std::filesystem::path> paths, const FileOptions& options,
                   std::span<const std::string> known_bad) {
  if (paths.empty()) throw Error(Status::invalid_argument, "inputs: 0 files; needs at least 1");
  check_distinct(paths);
  const std::optional<std::filesystem::path>& base = options.base;
  TensorChoice choice(options);
  const Skips of_owner = choice.of_owner(), of_worker = choice.of_worker();
  Inputs inputs;
  add_models(inputs, paths, options.weights);
  for (std::size_t i = 0; i < known_bad.size(); ++i) inputs.rows[i].bad = known_bad[i];
  Form form;
  const auto read_base_form = [&] {
    if (base->empty())
      throw Error(Status::invalid_argument, "base: the name is empty; give the path of a model");
    about_base([&] { form = read_form(*base, of_owner); });
    choice.check_form(form.tensors);
  };
  const auto has_most = [&] {
    const auto good = std::count_if(inputs.rows.begin(), inputs.rows.end(),
                                    [](const InputRow& row) { return row.bad.empty() && !row.left_out; });
    return 2 * static_cast<std::size_t>(good) > voters(inputs);
  };
  if (options.partial) {
    if (base) {
      read_base_form();
      if (form.npy) {
        throw Error(
            Status::invalid_argument,
            fmt::format("partial: {} is an npy, which has no tensors to hold some of", base->string()));
      }
      inputs.base = read_base(form, base->string(), *base, of_owner);
    } else {
      std::uint64_t seen = 0;
      form = agree_on_tensors(inputs, options, of_worker, seen);
      if (seen == 0 || !form.tensors.empty()) choice.check_form(form.tensors);
      check_agreed(inputs, form, options, of_worker);
    }
    OtherTensors others;
    place_rows(inputs, form, base ? base->string() : "more than half of the inputs", options, of_worker,
               &others);
    for (const Held& held : count_holders(inputs, others, options, of_worker))
      inputs.dropped.push_back(dropped(inputs, held));
    inputs.more_dropped = others.more;
    if (!base && !has_most()) {
      refuse(inputs,
             "more than half of the {} inputs must hold some of the tensors that more than half hold, and "
             "none in "
             "another dtype or shape, or a base must say which are right (base)",
             {}, "");
    }
  } else if (paths.size() == 1 && !choice.copies()) {
    try_row(inputs, inputs.rows.front(), options,
            [&](const PlacedModel& model) { form = read_form(model.path, of_owner); });
    choice.check_form(form.tensors);
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
    read_base_form();
    inputs.base = read_base(form, base->string(), *base, of_owner);
    place_rows(inputs, form, base->string(), options, of_worker);
  } else {
    const std::vector<Group> groups = find_groups(inputs, options, of_worker);
    std::string owner;
    std::tie(form, owner) = read_agreed(inputs, groups.front(), options, of_owner);
    choice.check_form(form.tensors);
    place_rows(inputs, form, owner, options, of_worker);
    if (!has_most()) refuse_forms(inputs, {}, options, of_worker);
  }
  inputs.unused = choice.unused(form.tensors);
  if (options.bad_inputs == BadInputs::error && !inputs.unused.empty())
    throw Error(Status::invalid_argument, "exclude: " + inputs.unused.front());
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
  for (std::size_t i = 0; i < inputs.rows.size() && options.weights.size() == inputs.rows.size(); ++i) {
    const double weight = options.weights[i];
    if (!(weight >= 0 && std::isfinite(weight))) inputs.rows[i].bad_weight = weight;
  }
  // What the tally found may have been in files that turned out to be bad.
  if (options.partial && !base) {
    std::vector<DroppedTensor> few(inputs.tensors.size());
    for (std::size_t t = 0; t < few.size(); ++t) {
      const std::size_t holders = count_rows_with(inputs, t);
      if (2 * holders > voters(inputs)) continue;
      few[t] = {inputs.tensors[t].name, holders, held_by(inputs, holders) + ", not by more than half"};
    }
    drop_tensors(inputs, few);
    if (inputs.tensors.empty()) refuse_partial(inputs, {});
  }
  return inputs;
}

void mark_bad(Inputs& inputs, std::size_t model, const std::string& reason, const FileOptions& options) {
  for (InputRow& row : inputs.rows) {
    if (row.model == model) row.bad = reason;
  }
  if (options.found_bad) options.found_bad(model, inputs.models[model].path.string(), reason);
}

std::size_t voters(const Inputs& inputs) {
  return static_cast<std::size_t>(std::count_if(inputs.rows.begin(), inputs.rows.end(),
                                                [](const InputRow& row) { return !row.left_out; }));
}

bool holds(const Inputs& inputs, const InputRow& row, std::size_t tensor) {
  if (!row.bad.empty() || row.left_out) return false;
  return (*inputs.models[row.model].places)[tensor].file != Place::nowhere;
}

std::size_t count_rows_with(const Inputs& inputs, std::size_t tensor) {
  return static_cast<std::size_t>(
      std::count_if(inputs.rows.begin(), inputs.rows.end(),
                    [&](const InputRow& row) { return holds(inputs, row, tensor); }));
}

void drop_tensors(Inputs& inputs, std::span<const DroppedTensor> dropped) {
  constexpr std::size_t longest = 256;
  const auto is_kept = [&](std::size_t t) { return dropped[t].reason.empty(); };
  const auto keep = [&](auto& list) {
    std::size_t to = 0;
    for (std::size_t t = 0; t < dropped.size(); ++t) {
      if (is_kept(t)) std::swap(list[to++], list[t]);
    }
    list.resize(to);
  };
  std::vector<std::size_t> after(dropped.size());
  std::size_t kept = 0;
  for (std::size_t t = 0; t < dropped.size(); ++t) {
    after[t] = kept;
    kept += is_kept(t) ? 1 : 0;
    if (is_kept(t)) continue;
    inputs.dropped.push_back(dropped[t]);
    inputs.dropped.back().name.resize(std::min(longest, dropped[t].name.size()));
  }
  if (kept == dropped.size()) return;
  std::stable_sort(inputs.dropped.begin(), inputs.dropped.end(),
                   [](const DroppedTensor& a, const DroppedTensor& b) { return a.inputs > b.inputs; });
  keep(inputs.tensors);
  for (auto* const list : {&inputs.floating, &inputs.integers, &inputs.copied}) {
    std::erase_if(*list, [&](std::size_t t) { return !is_kept(t); });
    for (std::size_t& t : *list) t = after[t];
  }
  std::map<const std::vector<Place>*, std::shared_ptr<const std::vector<Place>>> shared;
  std::vector<std::shared_ptr<const std::vector<Place>>> old;  // as long as their addresses are looked up
  for (PlacedModel& model : inputs.models) {
    if (!model.places) continue;
    old.push_back(model.places);
    auto& places = shared[model.places.get()];
    if (!places) {
      std::vector<Place> rest = *model.places;
      keep(rest);
      places = std::make_shared<const std::vector<Place>>(std::move(rest));
    }
    model.places = places;
  }
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
  if (extent.skipped == 0) {
    file_->read(extent.offset + offset_ + begin, to, bytes);
    if (extent.has_crc) check_sum(t, begin, bytes, to);
    return;
  }
  // Windows go forwards through a tensor, and so does it.
  if (!inflater_ || inflated_ != t) inflater_.emplace(extent.offset);
  inflated_ = t;
  inflater_->read(*file_, extent.skipped + begin, to, bytes);
  if (begin + bytes < tensors_[t].bytes) return;
  inflater_->finish(*file_, extent.crc);
  inflater_.reset();
}

/// Windows go forwards through a tensor. Where they have begun in its middle, because another rank has the
/// beginning, that is read at its end.
void RowReader::check_sum(std::size_t t, std::int64_t begin, std::int64_t bytes, const void* read) {
  const bool ends = begin + bytes == tensors_[t].bytes;
  const Extent& extent = (*model_->places)[t].extent;
  if (summed_ != t || begin == 0) {
    summed_ = t;
    summed_bytes_ = crc_ = 0;
  }
  if (summed_bytes_ != begin && !ends) return;
  if (summed_bytes_ != begin) {
    summed_bytes_ = crc_ = 0;
    std::vector<char> before(static_cast<std::size_t>(std::min<std::int64_t>(begin, 1 << 20)));
    while (summed_bytes_ < begin) {
      const std::int64_t some = std::min(begin - summed_bytes_, std::ssize(before));
      file_->read(extent.offset + summed_bytes_, before.data(), some);
      crc_ = crc32_after(crc_, before.data(), some);
      summed_bytes_ += some;
    }
  }
  crc_ = crc32_after(crc_, read, bytes);
  summed_bytes_ += bytes;
  if (!ends || crc_ == extent.crc) return;
  throw_bad_file(file_->path(), fmt::format("npz: array {} is damaged: its CRC-32 is not the directory's",
                                            show(tensors_[t].name)));
}

void RowReader::pause(bool holds_file) {
  if (file_) file_->check_unchanged();
  if (!holds_file) file_.reset();
}

}  // namespace bragg::detail
