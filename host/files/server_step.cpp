// SPDX-License-Identifier: Apache-2.0
#include "host/files/server_step.hpp"

#include <fmt/format.h>
#include <bragg/version.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "host/base/dtype.hpp"
#include "host/files/convert.hpp"
#include "host/files/output_plan.hpp"
#include "host/sharded/agreement.hpp"

namespace bragg::detail {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view version_key = "bragg_server_state";
constexpr std::string_view optimizer_key = "bragg_server_optimizer";
constexpr std::string_view step_key = "bragg_server_step";
constexpr std::string_view version = "1";

[[noreturn]] void refuse(const std::string& what) { throw Error(Status::invalid_argument, what); }

[[noreturn]] void refuse_state(const fs::path& path, const std::string& what) {
  throw Error(Status::bad_file, fmt::format("server_state: {}: {}", path.string(), what));
}

void check_numbers(const ServerOptimizer& optimizer) {
  for (const auto& [text, value] : numbers_of(optimizer)) {
    const std::string_view name = text;
    const bool is_share = name != "lr" && name != "tau";
    const double most = name == "tau" ? 1e19 : std::numeric_limits<double>::max();  // tau² is kept in f32
    if (is_share ? value >= 0 && value < 1 : value > 0 && value <= most) continue;
    refuse(fmt::format("server_{} = {}; needs {}", name, value,
                       is_share        ? "at least 0, and less than 1"
                       : name == "tau" ? "a number above 0, of at most 1e19"
                                       : "a finite number above 0"));
  }
}

}  // namespace

const char* name_of(const ServerOptimizer& optimizer) {
  return std::array{"sgd", "adam", "yogi"}[optimizer.index()];
}

std::vector<std::pair<const char*, double>> numbers_of(const ServerOptimizer& optimizer) {
  return std::visit(
      [](const auto& each) -> std::vector<std::pair<const char*, double>> {
        if constexpr (std::is_same_v<decltype(each), const ServerSgd&>) {
          return {{"lr", each.lr}, {"momentum", each.momentum}};
        } else {
          return {{"lr", each.lr}, {"beta1", each.beta1}, {"beta2", each.beta2}, {"tau", each.tau}};
        }
      },
      optimizer);
}

std::string to_string(const ServerOptimizer& optimizer) {
  std::string text;
  for (const auto& [name, value] : numbers_of(optimizer))
    text += fmt::format("{}{}={}", text.empty() ? "" : ", ", name, value);
  return fmt::format("{}({})", name_of(optimizer), text);
}

std::vector<ServerStep::Moment> ServerStep::moments_of(const ServerOptimizer& optimizer) {
  return std::visit(
      [](const auto& each) -> std::vector<Moment> {
        if constexpr (std::is_same_v<decltype(each), const ServerSgd&>) {
          if (each.momentum == 0) return {};
          return {{"momentum", 0}};
        } else {
          return {{"first", 0}, {"second", each.tau * each.tau}};
        }
      },
      optimizer);
}

ServerStep::ServerStep(const FileOptions& options, const Inputs& inputs, const fs::path& output)
    : options_(options),
      inputs_(inputs),
      optimizer_(*options.server),
      moments_(moments_of(optimizer_)),
      first_kept_(inputs.tensors.size()) {
  check_numbers(optimizer_);
  if (!inputs.base) refuse("server: needs a base, the model that the step goes from");
  const fs::path& path = options.server_state;
  const char* const name = name_of(optimizer_);
  if (moments_.empty()) {
    if (!path.empty()) refuse("server_state: sgd without momentum keeps nothing; leave it out");
    return;
  }
  if (path.empty()) refuse(fmt::format("server_state: {} needs a file to keep its moments in", name));
  if (path.extension() != ".safetensors")
    refuse(fmt::format("server_state: {}: needs a name that ends in .safetensors", path.string()));
  if (same_place(path, output)) refuse(fmt::format("server_state: {} is the output", path.string()));
  check_output("server_state:", path, inputs);

  for (const Moment& moment : moments_) {
    for (const std::size_t t : inputs.floating) {
      const TensorInfo& tensor = inputs.tensors[t];
      if (&moment == &moments_.front()) first_kept_[t] = kept_.size();
      const ElementType& type =
          element_type_of(element_type_of(tensor).dtype == DType::f64 ? DType::f64 : DType::f32);
      kept_.push_back(
          {.name = tensor.name.empty() ? moment.name : fmt::format("{}.{}", moment.name, tensor.name),
           .dtype = std::string(type.name),
           .shape = tensor.shape,
           .elements = tensor.elements,
           .bytes = tensor.elements * type.bytes});
    }
  }
  number_ = 1;
  std::error_code ignored;
  if (fs::exists(path, ignored)) open_state();
  const Metadata metadata = {{std::string(version_key), std::string(version)},
                             {std::string(optimizer_key), name},
                             {std::string(step_key), std::to_string(number_)},
                             {"bragg_server", to_string(optimizer_)},
                             {"bragg_version", BRAGG_VERSION_STRING}};
  layout_ = single_layout(safetensors_layout(kept_, metadata), kept_.size());
}

void ServerStep::open_state() {
  const fs::path& path = options_.server_state;
  const Model model = [&] {
    try {
      return open_model(path);
    } catch (const Error& error) {
      const char* const remedy = error.status() == Status::bad_file ? "; begin anew without the file" : "";
      throw Error(error.status(), fmt::format("server_state: {}{}", error.what(), remedy));
    }
  }();
  const auto metadata = [&](std::string_view key) -> std::string_view {
    for (const auto& [each, value] : model.metadata) {
      if (each == key) return value;
    }
    return {};
  };
  const std::string_view found_version = metadata(version_key), optimizer = metadata(optimizer_key),
                         step = metadata(step_key);
  if (found_version.empty()) refuse_state(path, "is not the state of a server's optimizer");
  if (found_version != version) {
    refuse_state(path,
                 fmt::format("is a state of version {}; this bragg knows {}", show(found_version), version));
  }
  if (optimizer != name_of(optimizer_)) {
    refuse_state(path, fmt::format("is the state of {}, not of {}; give each optimizer a file of its own",
                                   show(optimizer), name_of(optimizer_)));
  }
  constexpr std::int64_t most_steps = std::int64_t{1} << 53;
  const auto [end, code] = std::from_chars(step.data(), step.data() + step.size(), number_);
  if (code != std::errc{} || end != step.data() + step.size() || number_ < 1 || number_ > most_steps)
    refuse_state(path, fmt::format("{} is {}; needs a number of steps", step_key, show(step)));
  ++number_;

  constexpr const char* remedy = "it is the state of another model, or of other --exclude, --copy";
  for (const TensorInfo& kept : kept_) {
    const auto at = std::lower_bound(
        model.tensors.begin(), model.tensors.end(), kept.name,
        [](const StoredTensor& tensor, const std::string& name) { return tensor.info.name < name; });
    if (at == model.tensors.end() || at->info.name != kept.name)
      refuse_state(path, fmt::format("has no tensor {}: {}", show(kept.name), remedy));
    // The last step was perhaps from a base of another dtype (out_dtype).
    const bool is_readable = at->info.dtype == "F32" || at->info.dtype == "F64";
    if (!is_readable || at->info.shape != kept.shape) {
      refuse_state(path, fmt::format("tensor {} is {} of shape {}, which should be {} of {}: {}",
                                     show(kept.name), at->info.dtype, shape_text(at->info.shape), kept.dtype,
                                     shape_text(kept.shape), remedy));
    }
    places_.push_back({at->extent.offset, &element_type_of(at->info)});
  }
  if (model.tensors.size() != kept_.size()) {
    refuse_state(path, fmt::format("holds {} tensors, which should be {}: {}", model.tensors.size(),
                                   kept_.size(), remedy));
  }
  file_.emplace(path);
  if (model.files.size() != 1 || file_->id() != model.files.front().id)
    refuse_state(path, "changed while it was being opened");
}

std::int64_t ServerStep::bytes() const {
  constexpr std::int64_t entries = 500;  // of a tensor of the state, in all tables: measured
  constexpr std::int64_t names = 4;      // copies
  auto bytes = static_cast<std::int64_t>(sizeof(Block));
  for (const TensorInfo& kept : kept_) bytes += entries + names * static_cast<std::int64_t>(kept.name.size());
  return bytes;
}

std::uint64_t ServerStep::digest() const {
  Digest digest;
  digest.add(number_);
  if (file_) {
    digest.add(file_->id().size);
    digest.add(file_->id().modified_ns);
  }
  return digest.value();
}

std::int64_t ServerStep::step(const Window& window, const Piece& piece, std::byte* values,
                              const std::byte* base, OutputModel* state) {
  const TensorInfo& tensor = inputs_.tensors[piece.tensor];
  const auto made = static_cast<std::int64_t>(size_of(window.made));
  const auto given = static_cast<std::int64_t>(size_of(window.combined));
  std::int64_t nonfinite = 0, beyond = 0;
  for (std::int64_t begin = 0; begin < piece.size(); begin += block_size) {
    const std::int64_t count = std::min(block_size, piece.size() - begin);
    widen_to_f64(window.made, values + begin * made, count, block_.change.data());
    widen_to_f64(window.combined, base + begin * given, count, block_.base.data());
    std::int64_t bad_base = 0, bad = 0;
    for (std::size_t k = 0; k < static_cast<std::size_t>(count); ++k) {
      bad_base += std::isfinite(block_.base[k]) ? 0 : 1;
      bad += std::isfinite(block_.base[k]) && std::isfinite(block_.change[k]) ? 0 : 1;
      block_.change[k] -= block_.base[k];
    }
    if (bad_base > 0 && !takes_nonfinite()) {
      throw Error(Status::nonfinite_base,
                  fmt::format("tensor {} of {}, from which the server's step goes, holds NaN or infinity; "
                              "take another base, or {}",
                              show(tensor.name), inputs_.base->path.string(),
                              layout_ ? "exclude the tensor, or copy it"
                                      : "ask for such an output (allow_nonfinite)"));
    }
    if (state != nullptr) read_moments(piece, begin, count);
    move(count);
    if (state != nullptr) write_moments(piece, begin, count, *state);
    nonfinite += bad;
    beyond -= bad;
    for (std::size_t k = 0; k < static_cast<std::size_t>(count); ++k)
      beyond += std::isfinite(block_.next[k]) ? 0 : 1;
    auto* const next = reinterpret_cast<std::byte*>(block_.next.data());
    beyond += narrow(next, count, *window.out);
    std::memcpy(values + begin * window.out->bytes, next,
                static_cast<std::size_t>(count * window.out->bytes));
  }
  if (beyond > 0) {
    throw Error(
        Status::too_many_nonfinite,
        fmt::format("server: the step takes {} of the values of tensor {} beyond the largest {}; take a "
                    "smaller lr, or a wider dtype for the output",
                    beyond, show(tensor.name), window.out->name));
  }
  return nonfinite;
}

void ServerStep::move(std::int64_t count) {
  std::visit(
      [&](const auto& optimizer) {
        auto& [base, next, change, moments] = block_;
        for (std::size_t k = 0; k < static_cast<std::size_t>(count); ++k) {
          double step = change[k];
          if constexpr (std::is_same_v<decltype(optimizer), const ServerSgd&>) {
            if (optimizer.momentum > 0) step = moments[0][k] = optimizer.momentum * moments[0][k] + step;
          } else {
            const double square = step * step;
            double& first = moments[0][k];
            double& second = moments[1][k];
            first = optimizer.beta1 * first + (1 - optimizer.beta1) * step;
            if constexpr (std::is_same_v<decltype(optimizer), const ServerAdam&>) {
              second = optimizer.beta2 * second + (1 - optimizer.beta2) * square;
            } else {
              const double sign = second > square ? 1 : second < square ? -1 : 0;
              second -= (1 - optimizer.beta2) * square * sign;
            }
            step = first / (std::sqrt(second) + optimizer.tau);
          }
          next[k] = base[k] + optimizer.lr * step;
        }
      },
      optimizer_);
}

void ServerStep::read_moments(const Piece& piece, std::int64_t begin, std::int64_t count) {
  for (std::size_t m = 0; m < moments_.size(); ++m) {
    Values& values = block_.moments[m];
    if (!file_) {
      values.fill(moments_[m].start);
      continue;
    }
    const std::size_t k = first_kept_[piece.tensor] + m * inputs_.floating.size();
    const auto& [offset, stored] = places_[k];
    const ElementType& type = *stored;
    auto* const to = reinterpret_cast<std::byte*>(values.data());
    file_->read(offset + (piece.begin + begin) * type.bytes,
                to + count * (static_cast<std::int64_t>(sizeof(double)) - type.bytes), count * type.bytes);
    widen(to, count, type, DType::f64);
    const bool right = std::all_of(values.begin(), values.begin() + count, [&](double value) {
      return std::isfinite(value) && (m == 0 || value >= 0);
    });
    if (!right) {
      refuse_state(options_.server_state,
                   fmt::format("tensor {} holds NaN{}; begin anew without the file", show(kept_[k].name),
                               m == 0 ? " or infinity" : ", infinity or a number below 0"));
    }
  }
}

void ServerStep::write_moments(const Piece& piece, std::int64_t begin, std::int64_t count,
                               OutputModel& state) {
  for (std::size_t m = 0; m < moments_.size(); ++m) {
    const std::size_t k = first_kept_[piece.tensor] + m * inputs_.floating.size();
    const ElementType& type = element_type_of(kept_[k]);
    Values values = block_.moments[m];
    auto* const bytes = reinterpret_cast<std::byte*>(values.data());
    const bool right = std::all_of(values.begin(), values.begin() + count,
                                   [](double value) { return std::isfinite(value); });
    if (!right || narrow(bytes, count, type) > 0) {
      throw Error(
          Status::too_many_nonfinite,
          fmt::format("server: the step takes values of {} beyond the largest {}, so far is the aggregate "
                      "from the base in tensor {}; exclude the tensor, or copy it",
                      show(kept_[k].name), type.name, show(inputs_.tensors[piece.tensor].name)));
    }
    state.write(k, (piece.begin + begin) * type.bytes, bytes, count * type.bytes);
  }
}

void ServerStep::finish() const {
  if (file_) file_->check_unchanged();
}

}  // namespace bragg::detail
