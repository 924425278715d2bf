// SPDX-License-Identifier: Apache-2.0
// What a model is apart from its values, and whether another is one of the same. Of a model that is compared
// only places are kept, so that memory grows with the form that was agreed and not with what strangers send.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "host/io/model.hpp"

namespace bragg::detail {

/// Names, dtypes and shapes.
struct Form {
  std::vector<TensorInfo> tensors;  ///< sorted by name
  bool npy = false;

  std::optional<std::size_t> find(std::string_view name) const;
};

/// "291 tensors (290 F32, 1 I64) of 102400 bytes, safetensors".
std::string describe_form(std::span<const TensorInfo> tensors, bool npy);

/// Where a tensor's bytes are.
struct Place {
  static constexpr auto nowhere = static_cast<std::size_t>(-1);
  Extent extent;
  std::size_t file = nowhere;  ///< index in PlacedModel::files; nowhere: the model does not hold it
  bool operator==(const Place&) const = default;
};

/// A model of some form.
struct PlacedModel {
  explicit PlacedModel(std::filesystem::path path_in) : path(std::move(path_in)) {}

  std::filesystem::path path;
  std::vector<SourceFile> files;
  std::shared_ptr<const std::vector<Place>>
      places;                         ///< of the form's tensors; models laid out alike share it
  std::optional<std::string> format;  ///< the metadata "format"
};

/// Whether a model's tensor of that name is none to look at, whatever it is. Empty: there are no such ones.
using Skips = std::function<bool(const std::string& name)>;

/// Of the tensors that are looked at. @throws Error as visit_model; bad_file also where a name is there
/// twice.
Form read_form(const std::filesystem::path& path, const Skips& skips = {});

/// Tensors that a model holds beside those of a form, by the hash of their names. A stranger chooses them:
/// the first 100 are kept, and of each name the first 256 bytes.
struct OtherTensors {
  static constexpr std::size_t most = 100;
  std::map<std::uint64_t, std::string> names;
  bool more = false;  ///< there are others

  void add(const std::string& name);
  /// Sure where there are no others.
  bool may_have(const std::string& name) const;
  void merge(OtherTensors&& of_next);
};

/// Checks that a model is whole and of this form, which `owner` has, and fills `model`; of one that is not,
/// what was opened. Tensors that are skipped may be in either and not in the other; they have no place. With
/// `others` the model may lack some of the form's tensors, and hold others.
/// @throws Error bad_file (the tensor, both values), and as visit_model.
void read_placed_model(const Form& form, const std::string& owner, PlacedModel& model,
                       const Skips& skips = {}, OtherTensors* others = nullptr);

/// Equal forms have equal marks. Others have too with a chance of 2⁻⁶⁴, which nobody can better who does not
/// see the marks: their key is drawn when the program starts.
struct FormMark {
  std::uint64_t sum = 0;
  std::uint64_t tensors = 0;
  bool operator==(const FormMark&) const = default;
  bool operator<(const FormMark& other) const {
    return std::pair(sum, tensors) < std::pair(other.sum, other.tensors);
  }
};

/// Of the tensors that are looked at; in memory that does not grow with the model. @throws Error as
/// visit_model.
FormMark mark_form(const std::filesystem::path& path, const Skips& skips = {});
/// Of a form that was read, with the same skips.
FormMark mark_of(const Form& form);

/// Of one tensor: of its name, and of name, dtype and shape. Marks of others differ, as those of forms do.
struct TensorMark {
  std::uint64_t name = 0;
  std::uint64_t form = 0;
  bool operator==(const TensorMark&) const = default;
  bool operator<(const TensorMark& other) const {
    return std::pair(name, form) < std::pair(other.name, other.form);
  }
};

TensorMark mark_of(const TensorInfo& tensor);

/// Calls it for each tensor that is looked at, of any dtype; nothing else is kept of it. Whether the model is
/// an npy, whose array has no name. @throws Error as visit_model.
bool visit_tensors(const std::filesystem::path& path, const Skips& skips,
                   const std::function<void(TensorInfo&)>& visit);

}  // namespace bragg::detail
