// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/error.hpp>
#include <new>
#include <string>

#include "rules/floating_environment.hpp"

namespace bragg::detail {

/// What `body`, the call `name`, returns, computed in bragg's floating-point environment. @throws Error
/// out_of_memory, where it finds no memory.
template <class BodyT>
decltype(auto) api_call(const char* name, const BodyT& body) {
  const FloatingEnvironment environment;
  try {
    return body();
  } catch (const std::bad_alloc&) {
    throw Error(Status::out_of_memory, std::string(name) + ": out of memory");
  }
}

}  // namespace bragg::detail
