// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "host/io/file.hpp"

namespace bragg::detail {

/// SHA-256 of a whole file, in hexadecimal. `read` is told the bytes of each read.
/// @throws Error bad_file where the file changed since it was opened; io_error; internal: OpenSSL has no
/// SHA-256.
std::string sha256_of(const ReadFile& file, const std::function<void(std::uint64_t bytes)>& read);

}  // namespace bragg::detail
