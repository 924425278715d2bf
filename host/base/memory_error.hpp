// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/error.hpp>
#include <new>
#include <string>

namespace bragg::detail {

/// What `body` returns. @throws Error out_of_memory, naming the `call`, where it finds no memory.
template <class BodyT>
decltype(auto) memory_error_of(const char* call, const BodyT& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    throw Error(Status::out_of_memory, std::string(call) + ": out of memory");
  }
}

}  // namespace bragg::detail
