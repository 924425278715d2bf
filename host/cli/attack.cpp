// SPDX-License-Identifier: Apache-2.0
#include "host/cli/attack.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <bragg/attacks.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <functional>
#include <memory>
#include <numeric>
#include <span>

#include "host/cli/arguments.hpp"
#include "host/cli/interrupt.hpp"
#include "host/cli/text.hpp"
#include "host/files/convert.hpp"
#include "host/files/inputs.hpp"
#include "host/files/output_plan.hpp"
#include "host/io/element_type.hpp"
#include "host/io/output_model.hpp"
#include "rules/nearest.hpp"

namespace bragg::cli {

namespace fs = std::filesystem;

namespace {

using Values = std::vector<double>;

/// The honest workers' floating-point values, less the base's: a row each, tensors one behind the other.
struct Honest {
  detail::Inputs inputs;
  Values base;  ///< none: 0
  std::vector<Values> rows;

  Updates updates() const {
    std::vector<const void*> pointers;
    for (const Values& row : rows) pointers.push_back(row.data());
    return Updates::rows(pointers, static_cast<std::int64_t>(rows.front().size()), DType::f64);
  }
};

/// What bad workers send.
struct Made {
  std::vector<Values> rows;  ///< one for each bad worker, or one for all
  std::string outcome = {};  ///< how strong it is, where the attack decides that
  bool whole = false;        ///< rows are models, and not their differences from the base
};

Made one(Values row, std::string outcome = "") {
  return {.rows = {std::move(row)}, .outcome = std::move(outcome)};
}

std::span<const double> view(const Values& values) { return values; }

Made sign_flip(const AttackCommand& command, const Honest& honest) {
  return one(attacks::sign_flip<double>(attacks::moments(honest.updates()), command.scale.value_or(1)));
}

Made inner_product_manipulation(const AttackCommand& command, const Honest& honest) {
  return one(attacks::inner_product_manipulation<double>(attacks::moments(honest.updates()),
                                                         command.epsilon.value_or(0.5)));
}

Made a_little_is_enough(const AttackCommand& command, const Honest& honest) {
  return one(
      attacks::a_little_is_enough<double>(attacks::moments(honest.updates()), command.z.value_or(1.5)));
}

/// The values of a model of the workers' form.
Values read_values(const detail::Inputs& inputs, const detail::PlacedModel& model, std::int64_t offset,
                   const std::string& name);

/// The model of one worker, as it is.
Values worker(const AttackCommand& command, const Honest& honest) {
  const detail::Inputs& inputs = honest.inputs;
  const std::size_t k = command.row.value_or(0);
  if (k >= inputs.rows.size()) {
    throw Error(
        Status::invalid_argument,
        fmt::format("--row: {}; needs a number below {}, the number of workers", k, inputs.rows.size()));
  }
  const detail::InputRow& row = inputs.rows[k];
  return read_values(inputs, inputs.models[row.model], row.offset, inputs.names[k]);
}

Made mimic(const AttackCommand& command, const Honest& honest) {
  return {.rows = {worker(command, honest)}, .whole = true};
}

/// In float, which is what the bits are of.
Made bit_flip(const AttackCommand& command, const Honest& honest) {
  const Values row = worker(command, honest);
  std::vector<float> values(row.size());
  std::transform(row.begin(), row.end(), values.begin(), [](double x) { return static_cast<float>(x); });
  const std::vector<float> flipped = attacks::bit_flip(std::span<const float>(values), attacks::xie_bits);
  return {.rows = {{flipped.begin(), flipped.end()}}, .whole = true};
}

Made gaussian(const AttackCommand& command, const Honest& honest) {
  Made made{.rows = {}};
  for (int k = 0; k < command.f; ++k) {
    made.rows.push_back(attacks::gaussian<double>(honest.rows.front().size(), command.deviation.value_or(200),
                                                  command.seed.value_or(0) + static_cast<std::uint64_t>(k)));
  }
  return made;
}

constexpr std::array hostile_kinds = {"nan",  "negative_nan",    "infinity", "negative_infinity",
                                      "huge", "alternating_huge"};
constexpr std::array directions = {"unit", "std", "sign"};

/// The place of a choice, which the command line has checked.
template <class EnumT, std::size_t kCountT>
EnumT choice(const std::array<const char*, kCountT>& names, const std::optional<std::string>& given,
             EnumT otherwise) {
  if (!given) return otherwise;
  return static_cast<EnumT>(std::find(names.begin(), names.end(), *given) - names.begin());
}

Made hostile(const AttackCommand& command, const Honest& honest) {
  return one(attacks::hostile<double>(honest.rows.front().size(),
                                      choice(hostile_kinds, command.kind, attacks::Hostile::nan)));
}

Made rop(const AttackCommand& command, const Honest& honest) {
  if (!command.reference) {
    throw Error(
        Status::invalid_argument,
        "rop: needs --reference, the model that centered_clipping starts from: about zeros it sends 0");
  }
  FileOptions options;
  options.base = honest.inputs.models.front().path;
  options.bad_inputs = BadInputs::error;
  const detail::Inputs opened = [&] {
    try {
      return detail::open_inputs(std::span(&*command.reference, 1), options);
    } catch (const Error& error) {
      throw Error(error.status(), fmt::format("--reference: {}", error.what()));
    }
  }();
  Values reference = read_values(opened, opened.models.front(), 0, opened.names.front());
  for (std::size_t k = 0; k < honest.base.size(); ++k) reference[k] -= honest.base[k];
  return one(attacks::rop(attacks::moments(honest.updates()), view(reference), command.angle.value_or(90)));
}

attacks::Direction direction_of(const AttackCommand& command) {
  return choice(directions, command.direction, attacks::Direction::std);
}

Made min_max(const AttackCommand& command, const Honest& honest) {
  auto found = attacks::min_max<double>(honest.updates(), direction_of(command));
  return one(std::move(found.row), fmt::format("gamma = {:.4g}", found.strength));
}

Made min_sum(const AttackCommand& command, const Honest& honest) {
  auto found = attacks::min_sum<double>(honest.updates(), direction_of(command));
  return one(std::move(found.row), fmt::format("gamma = {:.4g}", found.strength));
}

Made fang_trimmed(const AttackCommand& command, const Honest& honest) {
  Made made{.rows = {}};
  for (int k = 0; k < command.f; ++k) {
    made.rows.push_back(attacks::fang_trimmed<double>(
        honest.updates(), command.seed.value_or(0) + static_cast<std::uint64_t>(k), command.b.value_or(2)));
  }
  return made;
}

Made fang_krum(const AttackCommand& command, const Honest& honest) {
  auto found = attacks::fang_krum<double>(honest.updates(), command.f);
  return one(std::move(found.row), fmt::format("lambda = {:.4g}", found.strength));
}

Pipeline target(const AttackCommand& command) {
  if (command.rule) return parse(*command.rule);
  throw Error(Status::invalid_argument,
              fmt::format("{}: name the pipeline that it is aimed at with --rule", command.name));
}

Made optimal_alie(const AttackCommand& command, const Honest& honest) {
  auto found =
      attacks::optimal_alie<double>(honest.updates(), target(command), command.f, command.most.value_or(10));
  return one(std::move(found.row), fmt::format("z = {:.4g}; {} ends {:.4g} from the honest mean",
                                               found.strength, to_string(target(command)), found.damage));
}

Made optimal_ipm(const AttackCommand& command, const Honest& honest) {
  auto found =
      attacks::optimal_ipm<double>(honest.updates(), target(command), command.f, command.most.value_or(10));
  return one(std::move(found.row), fmt::format("epsilon = {:.4g}; {} ends {:.4g} from the honest mean",
                                               found.strength, to_string(target(command)), found.damage));
}

struct Attack {
  std::string_view name;
  std::string_view what;
  std::vector<std::string_view> options;
  Made (*make)(const AttackCommand&, const Honest&);
};

/// In the order of the library's header.
const std::vector<Attack>& all_attacks() {
  static const std::vector<Attack> all = {
      {"sign_flip", "minus the honest mean, times --scale (1)", {"--scale"}, sign_flip},
      {"inner_product_manipulation",
       "minus the honest mean, times --epsilon (0.5)",
       {"--epsilon"},
       inner_product_manipulation},
      {"a_little_is_enough", "the mean less --z (1.5) standard deviations", {"--z"}, a_little_is_enough},
      {"mimic", "a copy of worker --row (0, the first)", {"--row"}, mimic},
      {"rop",
       "the mean, turned by --angle (90) degrees from --reference, the model that centered_clipping starts "
       "from",
       {"--reference", "--angle"},
       rop},
      {"min_max", "as far along --direction (std) as the honest are apart", {"--direction"}, min_max},
      {"min_sum", "the same for sums of squared distances", {"--direction"}, min_sum},
      {"fang_trimmed",
       "beyond the honest values, up to --b (2) times; another draw of --seed (0) for each worker",
       {"--b", "--seed"},
       fang_trimmed},
      {"fang_krum", "against the mean's signs, as far as krum(f) follows", {}, fang_krum},
      {"optimal_alie",
       "a_little_is_enough with the z of at most --most (10) that does most damage to --rule",
       {"--rule", "--most"},
       optimal_alie},
      {"optimal_ipm",
       "inner_product_manipulation with the epsilon of at most --most (10) that does",
       {"--rule", "--most"},
       optimal_ipm},
      {"bit_flip", "worker --row (0) with four bits of each float flipped", {"--row"}, bit_flip},
      {"gaussian",
       "noise of --deviation (200); another draw of --seed (0) for each worker",
       {"--deviation", "--seed"},
       gaussian},
      {"hostile", "values of --kind (nan)", {"--kind"}, hostile},
  };
  return all;
}

const Attack& attack_of(const AttackCommand& command) {
  for (const Attack& attack : all_attacks()) {
    if (attack.name == command.name) return attack;
  }
  const std::string_view meant =
      detail::nearest(command.name, all_attacks(), [](const Attack& attack) { return attack.name; });
  throw Error(Status::invalid_argument,
              meant.empty()
                  ? fmt::format("unknown attack '{}'; `bragg attack --help` lists them", command.name)
                  : fmt::format("unknown attack '{}'; did you mean {}?", command.name, meant));
}

/// An option that the attack would not look at is a mistake.
void check_options(const Attack& attack, const AttackCommand& command) {
  const std::pair<std::string_view, bool> options[] = {
      {"--scale", command.scale.has_value()},
      {"--epsilon", command.epsilon.has_value()},
      {"--z", command.z.has_value()},
      {"--deviation", command.deviation.has_value()},
      {"--b", command.b.has_value()},
      {"--angle", command.angle.has_value()},
      {"--most", command.most.has_value()},
      {"--direction", command.direction.has_value()},
      {"--kind", command.kind.has_value()},
      {"--rule", command.rule.has_value()},
      {"--row", command.row.has_value()},
      {"--seed", command.seed.has_value()},
      {"--reference", command.reference.has_value()},
  };
  for (const auto& [option, given] : options) {
    if (!given || std::count(attack.options.begin(), attack.options.end(), option) > 0) continue;
    throw Error(Status::invalid_argument,
                attack.options.empty() ? fmt::format("{}: {} has no options of its own", option, attack.name)
                                       : fmt::format("{}: {} does not take it, but {}", option, attack.name,
                                                     fmt::join(attack.options, " and ")));
  }
}

Values read_values(const detail::Inputs& inputs, const detail::PlacedModel& model, std::int64_t offset,
                   const std::string& name) {
  constexpr std::int64_t some = 1 << 18;
  detail::RowReader reader(model, inputs.tensors, offset);
  Values values;
  for (const std::size_t t : inputs.floating) {
    const TensorInfo& tensor = inputs.tensors[t];
    const detail::ElementType& type = detail::element_type_of(tensor);
    for (std::int64_t begin = 0; begin < tensor.elements; begin += some) {
      const std::int64_t count = std::min(some, tensor.elements - begin);
      values.resize(values.size() + static_cast<std::size_t>(count));
      auto* const memory = reinterpret_cast<std::byte*>(values.data() + values.size() - count);
      reader.read(t, begin * type.bytes, count * type.bytes, memory + count * (8 - type.bytes));
      detail::widen(memory, count, type, DType::f64);
      const auto bad = std::find_if(values.end() - count, values.end(),
                                    [](double x) { return !(std::abs(x) <= 0x1p480); });
      if (bad != values.end()) {
        throw Error(
            Status::bad_file,
            fmt::format("{}: tensor {} holds {}; attacks are made of finite models, of values of at most "
                        "2^480",
                        name, detail::show(tensor.name), *bad));
      }
    }
  }
  reader.close();
  return values;
}

Honest read_honest(const AttackCommand& command, const std::vector<fs::path>& paths) {
  FileOptions options;
  options.base = command.base;
  options.bad_inputs = BadInputs::error;
  Honest honest{.inputs = detail::open_inputs(paths, options), .base = {}, .rows = {}};
  const detail::Inputs& inputs = honest.inputs;
  if (inputs.floating.empty())
    throw Error(Status::bad_file, fmt::format("{}: holds no floating-point tensor", inputs.names.front()));
  if (inputs.base) honest.base = read_values(inputs, *inputs.base, 0, "--base");
  for (std::size_t i = 0; i < inputs.rows.size(); ++i) {
    const detail::InputRow& row = inputs.rows[i];
    honest.rows.push_back(read_values(inputs, inputs.models[row.model], row.offset, inputs.names[i]));
    for (std::size_t k = 0; k < honest.base.size(); ++k) honest.rows[i][k] -= honest.base[k];
  }
  return honest;
}

/// A model of the workers' form, to be committed: floating-point tensors of the row, others of the first
/// worker.
std::unique_ptr<detail::OutputModel> write_model(const fs::path& path, const std::string& attack,
                                                 const Honest& honest, Values row) {
  const detail::Inputs& inputs = honest.inputs;
  detail::Metadata metadata;
  if (inputs.format) metadata.emplace_back("format", *inputs.format);
  metadata.emplace_back("bragg_attack", attack);
  auto output = std::make_unique<detail::OutputModel>(
      path, detail::single_layout(inputs.npy ? detail::npy_layout(inputs.tensors.front())
                                             : detail::safetensors_layout(inputs.tensors, metadata),
                                  inputs.tensors.size()));
  auto* from = reinterpret_cast<std::byte*>(row.data());
  for (const std::size_t t : inputs.floating) {
    const TensorInfo& tensor = inputs.tensors[t];
    detail::narrow(from, tensor.elements, detail::element_type_of(tensor));
    output->write(t, 0, from, tensor.bytes);
    from += tensor.elements * 8;
  }
  const detail::InputRow& first = inputs.rows.front();
  detail::RowReader reader(inputs.models[first.model], inputs.tensors, first.offset);
  std::vector<std::byte> bytes;
  for (const std::size_t t : inputs.integers) {
    bytes.resize(static_cast<std::size_t>(inputs.tensors[t].bytes));
    reader.read(t, 0, inputs.tensors[t].bytes, bytes.data());
    output->write(t, 0, bytes.data(), inputs.tensors[t].bytes);
  }
  reader.close();
  return output;
}

}  // namespace

std::vector<std::string_view> attack_names() {
  std::vector<std::string_view> names;
  for (const Attack& attack : all_attacks()) names.push_back(attack.name);
  return names;
}

std::vector<std::string_view> direction_names() { return {directions.begin(), directions.end()}; }

std::vector<std::string_view> hostile_names() { return {hostile_kinds.begin(), hostile_kinds.end()}; }

std::string attack_lines() {
  std::string text;
  for (const Attack& attack : all_attacks())
    text += fmt::format("  {}\n{}", attack.name, wrapped(attack.what, 6, 80));
  return text;
}

void run(const AttackCommand& command) {
  const Attack& attack = attack_of(command);
  check_options(attack, command);
  if (std::count(attack.options.begin(), attack.options.end(), "--rule") > 0) target(command);
  if (command.output.empty()) throw Error(Status::invalid_argument, "--output: the name is empty");
  const std::vector<fs::path> paths = find_inputs(command.inputs, command.base, command.output / "model");
  find_inputs(command.inputs, command.base, command.output, true);  // the folder would be a worker, too
  const EndOnSignal guard(
      [&](int written) { return written == 0 ? "nothing was written" : "all files were written"; });
  const Honest honest = [&] {
    try {
      return read_honest(command, paths);
    } catch (const Error& error) {
      throw with_option_names(error);
    }
  }();
  Made made = attack.make(command, honest);
  for (Values& row : made.rows) {
    for (std::size_t k = 0; k < honest.base.size() && !made.whole; ++k) row[k] += honest.base[k];
  }
  detail::OutputFolder folder(command.output);
  const std::size_t digits = std::to_string(command.f).size();
  const std::vector<fs::path> outputs = [&] {
    std::vector<fs::path> names;
    for (int k = 1; k <= command.f; ++k) {
      names.push_back(command.output / fmt::format("{}-{:0{}}.{}", command.name, k, digits,
                                                   honest.inputs.npy ? "npy" : "safetensors"));
    }
    return names;
  }();
  for (const fs::path& output : outputs) detail::check_output("output", output, honest.inputs);
  std::vector<std::unique_ptr<detail::OutputModel>> written;
  for (std::size_t k = 0; k < outputs.size(); ++k)
    written.push_back(
        write_model(outputs[k], command.name, honest, made.rows[made.rows.size() == 1 ? 0 : k]));
  std::vector<detail::OutputFile*> files;
  for (const auto& model : written) {
    const std::vector<detail::OutputFile*> finished = model->finish();
    files.insert(files.end(), finished.begin(), finished.end());
  }
  detail::commit_together(files);
  folder.keep();
  const std::string last = outputs.size() > 1 ? " … " + outputs.back().filename().string() : "";
  fmt::print("{}{}: {} on {} worker{}, {} coordinates{}{}\n", printable(outputs.front().string()),
             printable(last), command.name, honest.rows.size(), honest.rows.size() == 1 ? "" : "s",
             honest.rows.front().size(), made.outcome.empty() ? "" : "; ", made.outcome);
}

}  // namespace bragg::cli
