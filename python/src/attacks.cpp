// SPDX-License-Identifier: Apache-2.0
#include "python/src/attacks.hpp"

#include <fmt/format.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string_view.h>
#include <bragg/attacks.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "host/files/convert.hpp"
#include "host/io/element_type.hpp"
#include "python/src/arrays.hpp"
#include "python/src/errors.hpp"

namespace bragg::python {

namespace {

using Row = std::vector<double>;
/// A row, and its strength and damage where the attack has them.
using Made = attacks::Optimal<double>;

Made with_strength(attacks::Found<double> found) { return {std::move(found.row), found.strength, 0}; }

attacks::Direction direction_named(std::string_view name) {
  if (name == "unit") return attacks::Direction::unit;
  if (name == "std") return attacks::Direction::std;
  if (name == "sign") return attacks::Direction::sign;
  throw nb::value_error(fmt::format("direction = '{}'; needs 'unit', 'std' or 'sign'", name).c_str());
}

/// Rounds the row to the dtypes of the honest rows.
void write(const Updates& honest, Row row, const std::vector<void*>& out) {
  auto* from = reinterpret_cast<std::byte*>(row.data());
  for (std::size_t t = 0; t < out.size(); ++t) {
    const std::int64_t count = honest.sizes()[t];
    detail::narrow(from, count, detail::element_type_of(honest.dtype(t)));
    if (count > 0) std::memcpy(out[t], from, static_cast<std::size_t>(count) * size_of(honest.dtype(t)));
    from += count * 8;
  }
}

/// `make` of the honest rows, written to `out`: fresh arrays in the form of a row. Strength and damage.
template <class MakeF>
std::pair<double, double> make_attack(Batch& batch, nb::handle out, std::uintptr_t stream,
                                      const MakeF& make) {
  const std::vector<void*> to = batch.read_row(out, "out", {}, false, stream);
  const Updates honest = batch.view();
  const nb::gil_scoped_release released;
  Made made = make(honest);
  write(honest, std::move(made.row), to);
  return {made.strength, made.damage};
}

/// Adds attack(updates, names, out, stream, ...).
template <class... ArgumentT, class... ExtraT>
void define(nb::module_& module, const char* name, Made (*attack)(const Updates&, ArgumentT...),
            const ExtraT&... extra) {
  module.def(
      name,
      [attack](nb::handle updates, nb::handle names, nb::handle out, std::uintptr_t stream,
               ArgumentT... arguments) {
        Batch batch(updates, names, stream);
        return make_attack(batch, out, stream,
                           [&](const Updates& honest) { return attack(honest, arguments...); });
      },
      nb::arg("updates").none(), nb::arg("names").none(), nb::arg("out"), nb::arg("stream"), extra...);
}

Made sign_flip(const Updates& honest, double scale) {
  return {attacks::sign_flip<double>(attacks::moments(honest), scale), scale, 0};
}

Made a_little_is_enough(const Updates& honest, double z) {
  return {attacks::a_little_is_enough<double>(attacks::moments(honest), z), z, 0};
}

Made min_max(const Updates& honest, std::string_view direction) {
  return with_strength(attacks::min_max<double>(honest, direction_named(direction)));
}

Made min_sum(const Updates& honest, std::string_view direction) {
  return with_strength(attacks::min_sum<double>(honest, direction_named(direction)));
}

Made fang_trimmed(const Updates& honest, std::uint64_t seed, double b) {
  return {attacks::fang_trimmed<double>(honest, seed, b), 0, 0};
}

Made fang_krum(const Updates& honest, int f) { return with_strength(attacks::fang_krum<double>(honest, f)); }

Made optimal_alie(const Updates& honest, std::string_view rule, int f, double most) {
  return attacks::optimal_alie<double>(honest, parse_shown(rule), f, most);
}

Made optimal_ipm(const Updates& honest, std::string_view rule, int f, double most) {
  return attacks::optimal_ipm<double>(honest, parse_shown(rule), f, most);
}

std::pair<double, double> rop(nb::handle updates, nb::handle names, nb::handle out, std::uintptr_t stream,
                              nb::handle reference, double angle) {
  Batch batch(updates, names, stream);
  const std::vector<void*> tensors = batch.read_row(reference, "reference", {}, false, stream);
  return make_attack(batch, out, stream, [&](const Updates& honest) {
    const std::vector<std::vector<const void*>> rows = {{tensors.begin(), tensors.end()}};
    std::vector<DType> dtypes;
    for (std::size_t t = 0; t < tensors.size(); ++t) dtypes.push_back(honest.dtype(t));
    // The mean of one row is the row.
    const Row values = attacks::moments(Updates::tensors(rows, honest.sizes(), dtypes)).mean;
    return Made{attacks::rop(attacks::moments(honest), std::span<const double>(values), angle), 0, 0};
  });
}

}  // namespace

void add_attacks(nb::module_& module) {
  define(module, "attack_sign_flip", sign_flip, nb::arg("scale"));
  define(module, "attack_a_little_is_enough", a_little_is_enough, nb::arg("z"));
  define(module, "attack_min_max", min_max, nb::arg("direction"));
  define(module, "attack_min_sum", min_sum, nb::arg("direction"));
  define(module, "attack_fang_trimmed", fang_trimmed, nb::arg("seed"), nb::arg("b"));
  define(module, "attack_fang_krum", fang_krum, nb::arg("f"));
  define(module, "attack_optimal_alie", optimal_alie, nb::arg("rule"), nb::arg("f"), nb::arg("most"));
  define(module, "attack_optimal_ipm", optimal_ipm, nb::arg("rule"), nb::arg("f"), nb::arg("most"));
  module.def("attack_rop", &rop, nb::arg("updates").none(), nb::arg("names").none(), nb::arg("out"),
             nb::arg("stream"), nb::arg("reference").none(), nb::arg("angle"));
}

}  // namespace bragg::python
