// SPDX-License-Identifier: Apache-2.0
// A value of one of several types, as a kernel's parameter can hold it. (std::visit is no device function.)
#pragma once

#include <algorithm>
#include <new>
#include <type_traits>

#include "rules/solve/team.hpp"

namespace bragg::detail::cuda {

template <class... T>
class OneOf {
  static_assert((std::is_trivially_copyable_v<T> && ...) && ((alignof(T) <= 8) && ...));

 public:
  OneOf() = default;  ///< Of no type: a visit does nothing.
  template <class U>
  requires(std::is_same_v<U, T> || ...) OneOf(const U& value)
      : kind_(kind_of<U>()) {  // NOLINT(google-explicit-constructor): as std::variant
    ::new (bytes_) U(value);
  }

  /// f.operator()<T>() for the T that the value is of. `f` is compiled for each of the types, in line: a call
  /// would take a kernel's pointers to memory.
  template <class F>
  BRAGG_HD_INLINE void visit_type(F f) const {
    int kind = 0;
    (void)((kind_ == kind++ && (f.template operator()<T>(), true)) || ...);
  }
  /// The value, of type U.
  template <class U>
  BRAGG_HD const U& as() const {
    return *reinterpret_cast<const U*>(bytes_);
  }

 private:
  template <class U>
  static constexpr int kind_of() {
    int kind = 0;
    (void)((std::is_same_v<U, T> || (++kind, false)) || ...);
    return kind;
  }

  int kind_ = -1;
  alignas(8) unsigned char bytes_[std::max({sizeof(T)...})];
};

}  // namespace bragg::detail::cuda
