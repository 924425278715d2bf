// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets share. A target reads bytes as a stranger's file or text and aborts where a promise
// is broken: what is refused is refused by name and in few words, and what is accepted comes back unchanged
// when it is written.
#pragma once

#include <bragg/error.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace bragg::fuzz {

/// Says what is wrong and aborts, so that the fuzzer keeps the input.
void expect(bool right, const std::string& what);

/// For the files of this process, in memory where the system allows it. It goes with the process.
const std::filesystem::path& folder();

/// A file in folder() of these bytes.
std::filesystem::path put(const char* name, const std::uint8_t* data, std::size_t size);

/// The error is of a kind that bytes of a file may cause, and names the place it is about.
void check_refusal(const Error& error, const std::string& named);

/// Opens the file. If it is accepted, writes what it holds, as its kind of file, and opens that: all has to
/// be the same.
void check_model(const std::filesystem::path& path, bool npy);

}  // namespace bragg::fuzz
