// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cctype>
#include <cstddef>
#include <string>

namespace bragg::detail {

/// A pipeline's text with the number in the place of F, where that is a word of its own.
inline std::string with_f(const std::string& text, int f) {
  const auto in_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; };
  std::string made;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool alone = text[i] == 'F' && (i == 0 || !in_word(text[i - 1])) &&
                       (i + 1 == text.size() || !in_word(text[i + 1]));
    made += alone ? std::to_string(f) : std::string(1, text[i]);
  }
  return made;
}

}  // namespace bragg::detail
