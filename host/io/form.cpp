// SPDX-License-Identifier: Apache-2.0
#include "host/io/form.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>
#include <limits>
#include <map>
#include <random>
#include <utility>

#include "host/io/element_type.hpp"

namespace bragg::detail {

namespace {

bool by_name(const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; }

// Marks
// -------------------------------------------------------------------------------------------------------------

struct HashKey {
  std::uint64_t low, high;
};

const HashKey& hash_key() {
  static const HashKey key = [] {
    std::random_device random;
    const auto word = [&] { return std::uint64_t{random()} << 32 | random(); };
    return HashKey{word(), word()};
  }();
  return key;
}

/// SipHash-2-4 (Aumasson and Bernstein 2012).
std::uint64_t keyed_hash(std::string_view text, const HashKey& key) {
  std::uint64_t a = key.low ^ 0x736f6d6570736575, b = key.high ^ 0x646f72616e646f6d;
  std::uint64_t c = key.low ^ 0x6c7967656e657261, d = key.high ^ 0x7465646279746573;
  const auto rounds = [&](int count) {
    for (int i = 0; i < count; ++i) {
      a += b;
      c += d;
      b = std::rotl(b, 13) ^ a;
      d = std::rotl(d, 16) ^ c;
      a = std::rotl(a, 32);
      c += b;
      a += d;
      b = std::rotl(b, 17) ^ c;
      d = std::rotl(d, 21) ^ a;
      c = std::rotl(c, 32);
    }
  };
  const auto take = [&](std::uint64_t word) {
    d ^= word;
    rounds(2);
    a ^= word;
  };
  std::uint64_t last = static_cast<std::uint64_t>(text.size()) << 56;
  while (text.size() >= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data(), 8);
    take(word);
    text.remove_prefix(8);
  }
  for (std::size_t i = 0; i < text.size(); ++i)
    last |= static_cast<std::uint64_t>(static_cast<unsigned char>(text[i])) << (8 * i);
  take(last);
  c ^= 0xff;
  rounds(4);
  return a ^ b ^ c ^ d;
}

class SkippingVisitor : public ModelVisitor {
 public:
  explicit SkippingVisitor(Skips skips) : skips_(std::move(skips)) {}
  bool skips(const std::string& name) override { return is_skipped(name); }

 protected:
  bool is_skipped(const std::string& name) const { return skips_ && skips_(name); }

 private:
  Skips skips_;
};

/// Of name, dtype and shape. `text` is a place to write them.
std::uint64_t hash_of(const TensorInfo& info, std::string& text) {
  text = info.dtype + ' ';
  for (const std::int64_t extent : info.shape) text += fmt::format("{},", extent);
  text += ' ';
  text += info.name;
  return keyed_hash(text, hash_key());
}

/// Tensors come in any order: their hashes are added.
class Marker final : public SkippingVisitor {
 public:
  using SkippingVisitor::SkippingVisitor;

  FormMark mark() const { return {mark_.sum + (npy ? 1 : 0), mark_.tensors}; }

  void tensor(TensorInfo& info, const Extent&) override {
    mark_.sum += hash_of(info, text_);
    ++mark_.tensors;
  }

 private:
  FormMark mark_;
  std::string text_;
};

class TensorVisitor final : public SkippingVisitor {
 public:
  TensorVisitor(const Skips& skips, const std::function<void(TensorInfo&)>& visit)
      : SkippingVisitor(skips), visit_(visit) {}

  bool takes_any_dtype() const override { return true; }
  void tensor(TensorInfo& info, const Extent&) override { visit_(info); }

 private:
  const std::function<void(TensorInfo&)>& visit_;
};

class FormReader : public SkippingVisitor {
 public:
  using SkippingVisitor::SkippingVisitor;

  Form take_form(const std::filesystem::path& path) {
    std::sort(tensors_.begin(), tensors_.end(), by_name);
    const auto twice = std::adjacent_find(tensors_.begin(), tensors_.end(),
                                          [](const auto& a, const auto& b) { return a.name == b.name; });
    if (twice != tensors_.end())
      throw_bad_file(path, fmt::format("tensor {}: is there twice", show(twice->name)));
    return {std::move(tensors_), npy};
  }

  void tensor(TensorInfo& info, const Extent&) override { tensors_.push_back(std::move(info)); }

 private:
  std::vector<TensorInfo> tensors_;
};

/// What all parts say, too.
class WholeReader final : public FormReader {
 public:
  WholeReader() : FormReader(Skips()) {}

  Metadata take_metadata() { return std::move(metadata_); }

  void metadata(std::string& key, std::string& value) override {
    of_file_.emplace_back(key, std::move(value));
  }

  void data(std::int64_t, std::int64_t) override {
    Metadata sorted = of_file_;
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end(),
                                          [](const auto& a, const auto& b) { return a.first == b.first; });
    if (twice != sorted.end()) {
      throw_bad_file(files.back().path,
                     fmt::format("__metadata__: the key {} is there twice", show(twice->first)));
    }
    if (files.size() == 1) {
      metadata_ = std::move(of_file_);
    } else {
      std::sort(metadata_.begin(), metadata_.end());
      Metadata shared;
      std::set_intersection(metadata_.begin(), metadata_.end(), sorted.begin(), sorted.end(),
                            std::back_inserter(shared));
      metadata_ = std::move(shared);
    }
    of_file_.clear();
  }

 private:
  Metadata metadata_, of_file_;
};

// Comparing
// -------------------------------------------------------------------------------------------------------------

/// The first difference is kept, not thrown: what follows tells whether a prefix is all of it.
class Comparison final : public SkippingVisitor {
 public:
  Comparison(const Form& form, const std::string& owner, const std::filesystem::path& path,
             const Skips& skips, OtherTensors* others)
      : SkippingVisitor(skips),
        others_(others),
        form_(form),
        owner_(owner),
        path_(path),
        places_(form.tensors.size()),
        seen_(form.tensors.size()) {}

  void metadata(std::string& key, std::string& value) override {
    constexpr std::size_t longest = 256;  // it is kept for every model, and a stranger chooses it
    if (key == "format" && value.size() <= longest) format_ = value;
  }

  bool skips(const std::string& name) override {
    if (is_skipped(name)) return true;
    if (others_ == nullptr || form_.find(name)) return false;
    others_->add(name);
    others_sum_ += hash_of_place(name, files.size() - 1);
    return true;
  }

  void skipped(std::int64_t bytes) override {
    if (__builtin_add_overflow(skipped_bytes_, bytes, &skipped_bytes_))
      skipped_bytes_ = std::numeric_limits<std::int64_t>::max();
  }

  void tensor(TensorInfo& info, const Extent& extent) override {
    ++count_;
    compare_prefixed(info);
    const std::optional<std::size_t> found = form_.find(info.name);
    if (!found) {
      differ(fmt::format("holds tensor {}, which is missing from {}", show(info.name), owner_));
      return;
    }
    const TensorInfo& expected = form_.tensors[*found];
    if (info.dtype != expected.dtype) {
      differ(fmt::format("tensor {} has dtype {}, but {} in {}", show(info.name), info.dtype, expected.dtype,
                         owner_));
    } else if (info.shape != expected.shape) {
      differ(fmt::format("tensor {} has shape {}, but {} in {}", show(info.name), shape_text(info.shape),
                         shape_text(expected.shape), owner_));
    } else if (seen_[*found]) {
      differ(fmt::format("tensor {}: is there twice", show(info.name)));
    }
    seen_[*found] = true;
    places_[*found] = {extent, files.size() - 1};
  }

  /// The tensors must tile the data: no holes, no overlaps, nothing behind the last. Of those that are
  /// skipped no places are kept: holes must be as large as they are together.
  void data(std::int64_t begin, std::int64_t end) override {
    const bool first = files.size() == 1;
    if (first || format_ != shared_format_) shared_format_ = first ? format_ : std::nullopt;
    format_.reset();
    std::int64_t left = std::exchange(skipped_bytes_, 0);
    if (!difference_.empty()) return;
    std::vector<std::size_t> order;
    for (std::size_t t = 0; t < places_.size(); ++t) {
      if (seen_[t] && places_[t].file == files.size() - 1) order.push_back(t);
    }
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return std::pair(places_[a].extent.offset, form_.tensors[a].bytes) <
             std::pair(places_[b].extent.offset, form_.tensors[b].bytes);
    });
    const std::filesystem::path& path = files.back().path;
    for (const std::size_t t : order) {
      const std::int64_t offset = places_[t].extent.offset;
      if (offset > begin && offset - begin <= left) {
        left -= offset - begin;
        begin = offset;
      }
      if (offset != begin) {
        throw_bad_file(path, fmt::format("tensor {}: begins at byte {}, expected {}: the data {}",
                                         show(form_.tensors[t].name), offset, begin,
                                         offset < begin ? "of two tensors overlap" : "has a hole"));
      }
      begin += form_.tensors[t].bytes;
    }
    if (end - begin == left) return;
    const std::string more = left > 0 ? fmt::format(", and {} bytes of those that are left out", left) : "";
    throw_bad_file(path, fmt::format("the tensors end at byte {}{}, but the file at {}", begin, more, end));
  }

  void mapped(const std::string& tensor, std::size_t file) override {
    if (mapped_.empty()) mapped_.resize(form_.tensors.size());
    if (is_skipped(tensor)) return;
    const std::optional<std::size_t> found = form_.find(tensor);
    if (!found && others_ != nullptr && others_->may_have(tensor)) {
      others_sum_ -= hash_of_place(tensor, file);
    } else if (!found || !seen_[*found]) {
      differ(fmt::format("tensor {} is not in {}, where the weight_map says it is", show(tensor),
                         file_name(file)));
    } else if (mapped_[*found]) {
      differ(fmt::format("weight_map: tensor {} is there twice", show(tensor)));
    } else if (places_[*found].file != file) {
      differ(fmt::format("tensor {} is in two files: {}, and {} as the weight_map says", show(tensor),
                         file_name(places_[*found].file), file_name(file)));
    }
    if (found) mapped_[*found] = true;
  }

  /// After the visit. @throws Error bad_file.
  void finish(PlacedModel& model) {
    if (npy != form_.npy) {
      const auto kind = [](bool is_npy) { return is_npy ? "npy" : "safetensors"; };
      throw_bad_file(path_, fmt::format("is {}, but {} is {}", kind(npy), owner_, kind(form_.npy)));
    }
    if (prefixed_ > 0 && prefixed_ == count_ && count_ == expected_count()) {
      throw_bad_file(path_, fmt::format("all its names begin with {}, and without it they are those of {}: "
                                        "save the model without this wrapper",
                                        show(prefix_), owner_));
    }
    if (difference_.empty()) find_missing();
    if (!difference_.empty()) throw_bad_file(path_, difference_);
    model.format = std::move(shared_format_);
    model.places = std::make_shared<const std::vector<Place>>(std::move(places_));
  }

 private:
  /// Of the other tensors, which may be many and are not kept: those of files and map have one sum.
  static std::uint64_t hash_of_place(const std::string& name, std::size_t file) {
    return keyed_hash(fmt::format("{} {}", file, name), hash_key());
  }

  void differ(std::string what) {
    if (difference_.empty()) difference_ = std::move(what);
  }

  std::string file_name(std::size_t file) const { return show(files[file].path.filename().string()); }

  std::size_t expected_count() const {
    return static_cast<std::size_t>(
        std::count_if(form_.tensors.begin(), form_.tensors.end(),
                      [&](const TensorInfo& tensor) { return !is_skipped(tensor.name); }));
  }

  /// The first tensor of the form that ought to be marked and is not.
  std::optional<std::size_t> first_without(const std::vector<bool>& marks) const {
    for (std::size_t t = 0; t < marks.size(); ++t) {
      if (!marks[t] && (seen_[t] || others_ == nullptr) && !is_skipped(form_.tensors[t].name)) return t;
    }
    return std::nullopt;
  }

  void find_missing() {
    if (std::find(seen_.begin(), seen_.end(), true) == seen_.end() && others_ != nullptr)
      return differ(fmt::format("holds none of the tensors of {}", owner_));
    if (const auto t = first_without(seen_))
      return differ(fmt::format("has no tensor {}, which {} holds", show(form_.tensors[*t].name), owner_));
    if (const auto t = first_without(mapped_)) {
      differ(fmt::format("tensor {} of {} is not in the weight_map", show(form_.tensors[*t].name),
                         file_name(places_[*t].file)));
    }
    if (!mapped_.empty() && others_sum_ != 0)
      differ(fmt::format("the weight_map and the files differ in tensors that {} has not", owner_));
  }

  /// Whether the name is a prefix, such as "module.", and that of an expected tensor. The first one says
  /// which.
  void compare_prefixed(const TensorInfo& info) {
    const auto agrees = [&](std::size_t length) {
      const auto found = form_.find(std::string_view(info.name).substr(length));
      return found && form_.tensors[*found].dtype == info.dtype && form_.tensors[*found].shape == info.shape;
    };
    for (std::size_t dot = info.name.find('.'); count_ == 1 && dot != std::string::npos;
         dot = info.name.find('.', dot + 1)) {
      if (!agrees(dot + 1)) continue;
      prefix_ = info.name.substr(0, dot + 1);
      break;
    }
    if (!prefix_.empty() && info.name.starts_with(prefix_) && agrees(prefix_.size())) ++prefixed_;
  }

  OtherTensors* const others_;    // null: the model has to hold all tensors, and no others
  std::uint64_t others_sum_ = 0;  // of their places in the files, less those in the weight_map
  const Form& form_;
  const std::string& owner_;
  const std::filesystem::path& path_;
  std::int64_t skipped_bytes_ = 0;  // of the file
  std::vector<Place> places_;
  std::vector<bool> seen_, mapped_;  // per tensor; mapped_ is empty where there is no map
  std::string difference_;
  std::size_t count_ = 0;
  std::string prefix_;
  std::size_t prefixed_ = 0;
  std::optional<std::string> format_, shared_format_;  // of the file; of all so far
};

}  // namespace

std::optional<std::size_t> Form::find(std::string_view name) const {
  const auto found =
      std::lower_bound(tensors.begin(), tensors.end(), name,
                       [](const TensorInfo& info, std::string_view text) { return info.name < text; });
  if (found == tensors.end() || found->name != name) return std::nullopt;
  return static_cast<std::size_t>(found - tensors.begin());
}

std::string describe_form(std::span<const TensorInfo> tensors, bool npy) {
  std::map<std::string_view, std::size_t> dtypes;
  std::uint64_t bytes = 0;
  for (const TensorInfo& tensor : tensors) {
    ++dtypes[tensor.dtype];
    bytes += static_cast<std::uint64_t>(tensor.bytes);
  }
  std::string counts;
  for (const auto& [dtype, count] : dtypes)
    counts += fmt::format("{}{} {}", counts.empty() ? "" : ", ", count, dtype);
  return fmt::format("{} tensor{} ({}) of {} bytes, {}", tensors.size(), tensors.size() == 1 ? "" : "s",
                     counts, bytes, npy ? "npy" : "safetensors");
}

Form read_form(const std::filesystem::path& path, const Skips& skips) {
  FormReader reader(skips);
  visit_model(path, reader);
  return reader.take_form(path);
}

Model open_model(const std::filesystem::path& path) {
  WholeReader reader;
  visit_model(path, reader);
  Form form = reader.take_form(path);
  PlacedModel placed(path);
  read_placed_model(form, path.string(), placed);
  Model model{.path = path,
              .npy = form.npy,
              .files = std::move(placed.files),
              .tensors = {},
              .metadata = reader.take_metadata()};
  for (std::size_t t = 0; t < form.tensors.size(); ++t) {
    const Place& place = (*placed.places)[t];
    model.tensors.push_back({std::move(form.tensors[t]), place.file, place.extent});
  }
  return model;
}

void read_placed_model(const Form& form, const std::string& owner, PlacedModel& model, const Skips& skips,
                       OtherTensors* others) {
  Comparison comparison(form, owner, model.path, skips, others);
  try {
    visit_model(model.path, comparison);
  } catch (...) {
    model.files = std::move(comparison.files);
    throw;
  }
  model.files = comparison.files;
  comparison.finish(model);
}

FormMark mark_form(const std::filesystem::path& path, const Skips& skips) {
  Marker marker(skips);
  visit_model(path, marker);
  return marker.mark();
}

FormMark mark_of(const Form& form) {
  FormMark mark{.sum = form.npy ? 1U : 0U, .tensors = form.tensors.size()};
  std::string text;
  for (const TensorInfo& tensor : form.tensors) mark.sum += hash_of(tensor, text);
  return mark;
}

TensorMark mark_of(const TensorInfo& tensor) {
  std::string text;
  return {keyed_hash(tensor.name, hash_key()), hash_of(tensor, text)};
}

bool visit_tensors(const std::filesystem::path& path, const Skips& skips,
                   const std::function<void(TensorInfo&)>& visit) {
  TensorVisitor visitor(skips, visit);
  visit_model(path, visitor);
  return visitor.npy;
}

void OtherTensors::add(const std::string& name) {
  constexpr std::size_t longest = 256;
  const std::uint64_t hash = keyed_hash(name, hash_key());
  if (names.size() < most) {
    names.emplace(hash, name.substr(0, longest));
  } else {
    more = more || !names.contains(hash);
  }
}

bool OtherTensors::may_have(const std::string& name) const {
  return more || names.contains(keyed_hash(name, hash_key()));
}

void OtherTensors::merge(OtherTensors&& of_next) {
  names.merge(of_next.names);
  more = more || of_next.more;
}

}  // namespace bragg::detail
