// SPDX-License-Identifier: Apache-2.0
// Aggregation of files: equal to the plan in memory bit for bit, whatever the windows; bounded memory; all or
// nothing.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <bragg/io.hpp>
#include <bragg/version.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "host/files/convert.hpp"
#include "tests/support/failure.hpp"
#include "tests/support/files.hpp"
#include "tests/support/values.hpp"

namespace {

namespace fs = std::filesystem;
using namespace bragg;
using bragg::test::failure_of;
using bragg::test::safetensors_bytes;
using bragg::test::TemporaryFolder;

constexpr std::uint64_t mib = 1 << 20;

struct Tensor {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::string data;

  std::int64_t elements() const {
    std::int64_t count = 1;
    for (const std::int64_t extent : shape) count *= extent;
    return count;
  }
};
using Model = std::vector<Tensor>;  // sorted by name

bool is_floating(const std::string& dtype) { return dtype.find('F') != std::string::npos; }

DType dtype_of(const std::string& name) {
  return name == "F32" ? DType::f32 : name == "F16" ? DType::f16 : name == "BF16" ? DType::bf16 : DType::f64;
}

std::int64_t bytes_of(const std::string& dtype) {
  if (dtype == "BOOL") return 1;
  return std::stoi(dtype.substr(dtype.find_first_of("0123456789"))) / 8;
}

/// The n workers' models of one layout: normal values, one row far off; integers of all bits.
std::vector<Model> make_models(int n, const Model& layout, unsigned seed, double scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<Model> models(static_cast<std::size_t>(n), layout);
  for (int i = 0; i < n; ++i) {
    for (Tensor& tensor : models[static_cast<std::size_t>(i)]) {
      tensor.data.resize(static_cast<std::size_t>(tensor.elements() * bytes_of(tensor.dtype)));
      if (!is_floating(tensor.dtype)) {
        for (char& byte : tensor.data)
          byte = static_cast<char>(tensor.dtype == "BOOL" ? random() % 2 : random());
        continue;
      }
      const double far = i == 2 ? 50 : 1;
      for (std::int64_t k = 0; k < tensor.elements(); ++k) {
        test::store(dtype_of(tensor.dtype), tensor.data.data(), static_cast<std::size_t>(k),
                    scale * far * (1 + normal(random)));
      }
    }
  }
  return models;
}

void write_model(const fs::path& path, const Model& model) {
  std::vector<TensorToWrite> tensors;
  for (const Tensor& tensor : model)
    tensors.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.data.data()});
  const std::vector<std::pair<std::string, std::string>> metadata = {{"format", "pt"}, {"other", "x"}};
  write_safetensors(path, tensors, metadata);
}

/// As others might write it: by name, with a header of odd length, so that nothing is aligned.
void write_unaligned(const fs::path& path, const Model& model) {
  std::string header = "{", data;
  for (const Tensor& tensor : model) {
    std::string shape;
    for (const std::int64_t extent : tensor.shape)
      shape += (shape.empty() ? "" : ",") + std::to_string(extent);
    header += (header.size() > 1 ? ",\"" : "\"") + tensor.name + R"(":{"dtype":")" + tensor.dtype +
              R"(","shape":[)" + shape + R"(],"data_offsets":[)" + std::to_string(data.size()) + "," +
              std::to_string(data.size() + tensor.data.size()) + "]}";
    data += tensor.data;
  }
  header += '}';
  if (header.size() % 2 == 0) header += ' ';
  test::write_text(path, safetensors_bytes(header, data));
}

Model read_model(const fs::path& path) {
  const Checkpoint read = Checkpoint::open(path);
  Model model;
  for (std::size_t t = 0; t < read.tensors().size(); ++t) {
    const TensorInfo& info = read.tensors()[t];
    const auto* data = static_cast<const char*>(read.data(t));
    model.push_back({info.name, info.dtype, info.shape, {data, data + info.bytes}});
  }
  return model;
}

std::vector<fs::path> write_models(const TemporaryFolder& folder, const std::vector<Model>& models) {
  std::vector<fs::path> paths;
  for (std::size_t i = 0; i < models.size(); ++i) {
    paths.push_back(folder / ("w" + std::to_string(i) + ".safetensors"));
    i % 2 == 0 ? write_model(paths.back(), models[i]) : write_unaligned(paths.back(), models[i]);
  }
  return paths;
}

struct Expected {
  std::vector<std::string> tensors;  // bytes of the floating ones
  std::vector<Report> reports;
};

/// What the plan in memory makes of the floating-point tensors, which have one dtype.
Expected run_plan(const Pipeline& pipeline, const std::vector<Model>& models, const Model* base,
                  const FileOptions& options) {
  std::vector<std::int64_t> sizes;
  DType dtype = DType::f32;
  const auto pointers = [&](const Model& model) {
    std::vector<const void*> row;
    sizes.clear();
    for (const Tensor& tensor : model) {
      if (!is_floating(tensor.dtype)) continue;
      dtype = dtype_of(tensor.dtype);
      sizes.push_back(tensor.elements());
      row.push_back(tensor.data.data());
    }
    return row;
  };
  std::vector<std::vector<const void*>> rows;
  for (const Model& model : models) rows.push_back(pointers(model));
  const Updates updates = Updates::tensors(rows, sizes, dtype);
  const DType out = options.options.out_dtype.value_or(dtype);
  Expected expected;
  Output output;
  for (const std::int64_t size : sizes)
    expected.tensors.emplace_back(static_cast<std::size_t>(size) * size_of(out), '\0');
  for (std::string& tensor : expected.tensors) output.tensors.push_back(tensor.data());
  RunArguments arguments{.base = {}, .weights = options.weights};
  if (base != nullptr) arguments.base = Row(pointers(*base));
  expected.reports = aggregate(pipeline, updates, output, arguments, options.options);
  return expected;
}

void expect_equal_reports(const std::vector<Report>& a, const std::vector<Report>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t k = 0; k < a.size(); ++k) {
    EXPECT_EQ(a[k].iterations, b[k].iterations);
    ASSERT_EQ(a[k].rows.size(), b[k].rows.size());
    for (std::size_t i = 0; i < a[k].rows.size(); ++i) {
      EXPECT_EQ(a[k].rows[i].weight, b[k].rows[i].weight);
      EXPECT_EQ(a[k].rows[i].nonfinite, b[k].rows[i].nonfinite);
      EXPECT_EQ(a[k].rows[i].clip_factor, b[k].rows[i].clip_factor);
    }
  }
}

void expect_equal_tensors(const Model& file, const Expected& expected) {
  std::size_t k = 0;
  for (const Tensor& tensor : file) {
    if (!is_floating(tensor.dtype)) continue;
    ASSERT_LT(k, expected.tensors.size());
    EXPECT_TRUE(tensor.data == expected.tensors[k]) << "tensor " << tensor.name;
    ++k;
  }
  EXPECT_EQ(k, expected.tensors.size());
}

Model layout_of(const std::string& dtype) {
  return {{"a.bias", dtype, {7}, {}},      {"a.weight", dtype, {201, 503}, {}},
          {"b.bias", dtype, {}, {}},       {"b.none", dtype, {0, 4}, {}},
          {"b.steps", "I64", {}, {}},      {"b.weight", dtype, {3, 8192}, {}},
          {"c.mask", "BOOL", {11}, {}},    {"c.weight", dtype, {8192}, {}},
          {"d.weight", dtype, {8193}, {}}, {"e.weight", dtype, {2, 3, 5}, {}}};
}

// Equality with the plan
// -----------------------------------------------------------------------------------------

class EqualsPlan : public testing::TestWithParam<const char*> {};

TEST_P(EqualsPlan, BitForBitAtEveryMemoryBoundThreadCountAndScope) {
  const Pipeline pipeline = parse(GetParam());
  const TemporaryFolder folder;
  const auto models = make_models(9, layout_of("F32"), 1);
  const auto paths = write_models(folder, models);
  const Model base = make_models(1, layout_of("F32"), 77).front();
  write_model(folder / "base", base);
  for (const Scope scope : {Scope::whole, Scope::per_tensor}) {
    for (const bool with_base : {false, true}) {
      FileOptions options;
      options.options.scope = scope;
      if (with_base) options.base = folder / "base";
      const Expected expected = run_plan(pipeline, models, with_base ? &base : nullptr, options);
      for (const std::uint64_t memory : {mib, 2 * mib, 64 * mib}) {
        for (const int threads : {1, 2}) {
          SCOPED_TRACE(testing::Message() << "memory " << memory << " threads " << threads << " base "
                                          << with_base << " per tensor " << (scope == Scope::per_tensor));
          options.memory = memory;
          options.options.threads = threads;
          const FileResult result = aggregate_files(pipeline, paths, folder / "out", options);
          expect_equal_tensors(read_model(folder / "out"), expected);
          expect_equal_reports(result.reports, expected.reports);
          EXPECT_EQ(result.coordinates, 7 + 201 * 503 + 1 + 3 * 8192 + 8192 + 8193 + 30);
          EXPECT_EQ(result.integers, 12);
          EXPECT_EQ(result.tensors.size(), 8u);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Pipelines, EqualsPlan,
                         testing::Values("mean", "median", "trimmed_mean(f=2)", "krum(f=2)",
                                         "multi_krum(f=2)", "nnm(f=2) | trimmed_mean(f=2)",
                                         "geometric_median", "clip(c=20) | median",
                                         "centered_clipping(tau=10, iters=3)",
                                         "bucketing(s=2, seed=5) | median", "arc(f=2) | bulyan(f=1)",
                                         "dnc(f=2, sample=300, iters=2)",
                                         "nnm(f=2) | dnc(f=2, sample=50, seed=3)"));

TEST(Stream, EveryFloatingDtypeEqualsThePlan) {
  for (const char* dtype : {"F16", "BF16", "F64"}) {
    SCOPED_TRACE(dtype);
    const TemporaryFolder folder;
    const auto models = make_models(7, layout_of(dtype), 2);
    const auto paths = write_models(folder, models);
    for (const char* text : {"trimmed_mean(f=2)", "nnm(f=1) | median"}) {
      FileOptions options;
      options.memory = mib;
      aggregate_files(parse(text), paths, folder / "out", options);
      expect_equal_tensors(read_model(folder / "out"), run_plan(parse(text), models, nullptr, options));
      if (std::string_view(dtype) == "F64") continue;
      options.options.out_dtype = DType::f32;
      aggregate_files(parse(text), paths, folder / "out", options);
      const Model out = read_model(folder / "out");
      EXPECT_EQ(out.front().dtype, "F32");
      expect_equal_tensors(out, run_plan(parse(text), models, nullptr, options));
    }
  }
}

/// The same models with every value as f64.
std::vector<Model> widened(std::vector<Model> models) {
  for (Model& model : models) {
    for (Tensor& tensor : model) {
      const detail::ElementType& type = *detail::find_element_type(tensor.dtype);
      if (type.kind != detail::ElementKind::floating) continue;
      tensor.data.insert(0, static_cast<std::size_t>(tensor.elements() * (8 - type.bytes)), '\0');
      detail::widen(reinterpret_cast<std::byte*>(tensor.data.data()), tensor.elements(), type, DType::f64);
      tensor.dtype = "F64";
    }
  }
  return models;
}

/// f64 values as another type's.
std::string narrowed(std::string values, std::string_view dtype) {
  const detail::ElementType& type = *detail::find_element_type(dtype);
  const auto count = static_cast<std::int64_t>(values.size() / 8);
  EXPECT_EQ(detail::narrow(reinterpret_cast<std::byte*>(values.data()), count, type), 0);
  values.resize(static_cast<std::size_t>(count * type.bytes));
  return values;
}

TEST(Stream, WhatTheRulesDoNotWriteIsRoundedOnceFromF64) {
  const std::pair<const char*, const char*> cases[] = {
      {"F8_E4M3", ""},    {"F8_E5M2", ""}, {"F8_E5M2", "bf16"}, {"F8_E4M3", "F8_E5M2"}, {"F32", "bf16"},
      {"F32", "f8_e4m3"}, {"F32", "F16"},  {"BF16", "f64"},     {"F16", "F8_E5M2"},     {"F64", "F32"}};
  const Model layout = {{"a.bias", "F64", {7}, {}},
                        {"a.steps", "I64", {}, {}},
                        {"a.weight", "F64", {30011}, {}},
                        {"b.none", "F64", {0, 4}, {}},
                        {"c.weight", "F64", {8193}, {}}};
  for (const auto& [in, out] : cases) {
    SCOPED_TRACE(std::string(in) + " to " + out);
    const TemporaryFolder folder;
    std::vector<Model> models = make_models(7, layout, 21);
    for (Model& model : models) {
      for (Tensor& tensor : model) {
        if (!is_floating(tensor.dtype)) continue;
        tensor.data = narrowed(tensor.data, in);
        tensor.dtype = in;
      }
    }
    const auto paths = write_models(folder, models);
    const std::vector<Model> wide = widened(models);
    for (const char* text : {"median", "nnm(f=2) | trimmed_mean(f=2)", "krum(f=2)"}) {
      for (const Scope scope : {Scope::whole, Scope::per_tensor}) {
        FileOptions options;
        options.options.scope = scope;
        Expected expected = run_plan(parse(text), wide, nullptr, options);
        for (std::string& tensor : expected.tensors)
          tensor = narrowed(tensor, *out == '\0' ? in : detail::find_floating_type(out)->name);
        options.out_dtype = out;
        for (const std::uint64_t memory : {3 * mib / 2, 64 * mib}) {
          options.memory = memory;
          const FileResult result = aggregate_files(parse(text), paths, folder / "out", options);
          expect_equal_tensors(read_model(folder / "out"), expected);
          expect_equal_reports(result.reports, expected.reports);
        }
      }
    }
  }
}

TEST(Stream, RoundingIsNotDoneTwice) {
  // The mean is just above the middle of 1 and 1.25: an f32 would be at the middle, and go to the even 1.
  const TemporaryFolder folder;
  std::vector<fs::path> paths;
  for (const char* code : {"\x3c", "\x3d", "\x7b"}) {  // 1, 1.25, 57344
    paths.push_back(folder / ("w" + std::to_string(paths.size())));
    write_model(paths.back(), {{"w", "F8_E5M2", {1}, code}});
  }
  FileOptions options;
  options.weights = {1, 1, 0x1p-45};
  aggregate_files(Mean{}, paths, folder / "out", options);
  EXPECT_EQ(read_model(folder / "out")[0].data, "\x3d");
  options.weights = {1, 1, 0};
  aggregate_files(Mean{}, paths, folder / "out", options);
  EXPECT_EQ(read_model(folder / "out")[0].data, "\x3c");
}

TEST(Stream, AModelMayMixEightBitsWithOthers) {
  const TemporaryFolder folder;
  const Model layout = {{"a.weight", "U8", {5}, {}},
                        {"b.norm", "BF16", {3}, {}},
                        {"c.scale", "F64", {2}, {}},
                        {"d.steps", "I64", {}, {}}};
  std::vector<Model> models = make_models(5, layout, 22);
  for (std::size_t i = 0; i < models.size(); ++i)
    models[i][0] = {"a.weight", "F8_E4M3", {5}, std::string(5, static_cast<char>(0x30 + 2 * i))};
  const auto paths = write_models(folder, models);
  aggregate_files(Median{}, paths, folder / "out");
  const Model out = read_model(folder / "out");
  EXPECT_EQ(out[0].dtype, "F8_E4M3");
  EXPECT_EQ(out[0].data, std::string(5, '\x34'));
  EXPECT_EQ(out[1].dtype, "BF16");
  EXPECT_EQ(out[2].dtype, "F64");
  // With distances over all of them, and each tensor by itself.
  for (const Scope scope : {Scope::whole, Scope::per_tensor}) {
    FileOptions options;
    options.options.scope = scope;
    const FileResult result = aggregate_files(parse("krum(f=1)"), paths, folder / "out", options);
    const auto& rows = result.reports.front().rows;
    const auto chosen = static_cast<std::size_t>(
        std::find_if(rows.begin(), rows.end(), [](const RowReport& row) { return row.selected; }) -
        rows.begin());
    EXPECT_EQ(read_model(folder / "out")[0].data, models[chosen][0].data);
  }
}

TEST(Stream, AValueThatIsTooLargeForTheOutputsDtypeIsAnError) {
  const TemporaryFolder folder;
  const auto paths = write_models(folder, make_models(3, {{"w", "F32", {1000}, {}}}, 23, 1000));
  FileOptions options;
  options.out_dtype = "f8_e4m3";
  const auto [status, message] =
      failure_of([&] { aggregate_files(Median{}, paths, folder / "out", options); });
  EXPECT_EQ(status, Status::invalid_argument);
  EXPECT_NE(message.find("out_dtype = F8_E4M3"), std::string::npos) << message;
  EXPECT_NE(message.find("\"w\""), std::string::npos) << message;
  EXPECT_EQ(folder.entries(), 3);
}

TEST(Stream, HugeF64ValuesAreScaledAsInThePlan) {
  // Squares overflow, yet no value is beyond 2^500, where rows count as infinite.
  const TemporaryFolder folder;
  const auto models = make_models(7, layout_of("F64"), 3, 1e147);
  const auto paths = write_models(folder, models);
  FileOptions options;
  options.memory = mib;
  for (const char* text : {"krum(f=2)", "nnm(f=2) | median"}) {
    const FileResult result = aggregate_files(parse(text), paths, folder / "out", options);
    const Expected expected = run_plan(parse(text), models, nullptr, options);
    expect_equal_tensors(read_model(folder / "out"), expected);
    expect_equal_reports(result.reports, expected.reports);
  }
}

TEST(Stream, WeightsAreThoseOfThePlanAndRowsWithoutWeightAreNotRead) {
  const TemporaryFolder folder;
  auto models = make_models(8, layout_of("F32"), 4);
  const auto paths = write_models(folder, models);
  FileOptions options;
  options.weights = {1, 2, 0, 3, 1, 0, 1, 2.5};
  bool removed = false;
  options.progress = [&](const Progress&) {
    if (removed) return;
    fs::remove(paths[2]);
    fs::remove(paths[5]);
    removed = true;
  };
  const FileResult result = aggregate_files(parse("geometric_median"), paths, folder / "out", options);
  const Expected expected = run_plan(parse("geometric_median"), models, nullptr, options);
  EXPECT_TRUE(removed);
  expect_equal_tensors(read_model(folder / "out"), expected);
  expect_equal_reports(result.reports, expected.reports);
}

// Mixed dtypes
// ----------------------------------------------------------------------------------------------------

TEST(Stream, DistancesOfMixedDtypesCountEveryTensor) {
  // Worker 3 is nearest to the rest only when every tensor, whatever its dtype, is measured: row i differs in
  // tensor i, row 4 in tensor 3, row 3 in none.
  const TemporaryFolder folder;
  std::vector<Model> models;
  const char* const dtypes[] = {"F32", "BF16", "F16", "F64", "F32"};
  for (int i = 0; i < 5; ++i) {
    Model model;
    for (int t = 0; t < 5; ++t) {
      Tensor tensor{"t" + std::to_string(t), dtypes[t], {1000}, {}};
      tensor.data.resize(static_cast<std::size_t>(1000 * bytes_of(tensor.dtype)));
      const double value = i != 3 && t == (i == 4 ? 3 : i) ? 3 : 1;
      for (std::size_t k = 0; k < 1000; ++k)
        test::store(dtype_of(tensor.dtype), tensor.data.data(), k, value);
      model.push_back(tensor);
    }
    models.push_back(model);
  }
  const auto paths = write_models(folder, models);
  for (const std::uint64_t memory : {mib, 64 * mib}) {
    FileOptions options;
    options.memory = memory;
    const FileResult result = aggregate_files(parse("krum(f=1)"), paths, folder / "out", options);
    EXPECT_TRUE(result.reports[0].rows[3].selected);
    const Model out = read_model(folder / "out");
    for (std::size_t t = 0; t < 5; ++t) EXPECT_TRUE(out[t].data == models[3][t].data) << t;
    // Rows differ by 2 in 1000 places, or in two tensors; the score sums the two nearest. All values are
    // exact.
    EXPECT_EQ(result.reports[0].rows[3].score, 4000 + 4000);
    EXPECT_EQ(result.reports[0].rows[0].score, 4000 + 8000);
  }
}

TEST(Stream, HugeF64BesideOtherDtypesSharesOneScale) {
  // The f64 tensor is so large that its squares overflow; the f32 tensor is as large as it can be.
  const TemporaryFolder folder;
  std::vector<Model> models;
  const double values[] = {1, 1.5, 1.25, 8, 1.125};
  for (const double value : values) {
    Tensor a{"a", "F64", {10000}, std::string(80000, '\0')}, b{"b", "F32", {10}, std::string(40, '\0')};
    for (std::size_t k = 0; k < 10000; ++k) test::store(DType::f64, a.data.data(), k, value * 0x1p490);
    for (std::size_t k = 0; k < 10; ++k) test::store(DType::f32, b.data.data(), k, value);
    models.push_back({a, b});
  }
  const auto paths = write_models(folder, models);
  FileOptions options;
  options.memory = mib;
  const FileResult result = aggregate_files(parse("krum(f=1)"), paths, folder / "out", options);
  EXPECT_TRUE(result.reports[0].rows[4].selected);
  EXPECT_TRUE(read_model(folder / "out")[1].data == models[4][1].data);
}

// Integers
// ----------------------------------------------------------------------------------------------------------

template <class T>
std::string lower_medians(const std::vector<Model>& models, std::size_t t, const std::vector<int>& rows) {
  std::string out = models[0][t].data;
  for (std::size_t k = 0; k < out.size() / sizeof(T); ++k) {
    std::vector<T> column;
    for (const int i : rows) {
      T value;
      std::memcpy(&value, models[static_cast<std::size_t>(i)][t].data.data() + k * sizeof(T), sizeof(T));
      column.push_back(value);
    }
    std::sort(column.begin(), column.end());
    std::memcpy(out.data() + k * sizeof(T), &column[(column.size() - 1) / 2], sizeof(T));
  }
  return out;
}

TEST(Stream, IntegersAndBoolsTakeTheLowerMedianOfTheWorkersThatHaveWeight) {
  const Model layout = {{"bool", "BOOL", {777}, {}}, {"i16", "I16", {777}, {}}, {"i32", "I32", {777}, {}},
                        {"i64", "I64", {70001}, {}}, {"i8", "I8", {777}, {}},   {"u16", "U16", {777}, {}},
                        {"u32", "U32", {777}, {}},   {"u64", "U64", {777}, {}}, {"u8", "U8", {}, {}}};
  for (const int n : {1, 2, 3, 4, 7, 16, 33}) {
    SCOPED_TRACE(n);
    const TemporaryFolder folder;
    const auto models = make_models(n, layout, 5);
    const auto paths = write_models(folder, models);
    FileOptions options;
    options.memory = 4 * mib;
    options.integers = Integers::lower_median;
    std::vector<int> rows;
    for (int i = 0; i < n; ++i) {
      options.weights.push_back(n > 2 && i == 1 ? 0 : n > 3 && i == 0 ? -1 : 2);
      if (options.weights.back() > 0) rows.push_back(i);
    }
    const FileResult result = aggregate_files(Median{}, paths, folder / "out", options);
    EXPECT_EQ(result.integers, 7 * 777 + 70001 + 1);
    EXPECT_EQ(result.coordinates, 0);
    ASSERT_EQ(result.reports.size(), 1u);
    const Model out = read_model(folder / "out");
    ASSERT_EQ(out.size(), layout.size());
    EXPECT_TRUE(out[0].data == lower_medians<std::uint8_t>(models, 0, rows));
    EXPECT_TRUE(out[1].data == lower_medians<std::int16_t>(models, 1, rows));
    EXPECT_TRUE(out[2].data == lower_medians<std::int32_t>(models, 2, rows));
    EXPECT_TRUE(out[3].data == lower_medians<std::int64_t>(models, 3, rows));
    EXPECT_TRUE(out[4].data == lower_medians<std::int8_t>(models, 4, rows));
    EXPECT_TRUE(out[5].data == lower_medians<std::uint16_t>(models, 5, rows));
    EXPECT_TRUE(out[6].data == lower_medians<std::uint32_t>(models, 6, rows));
    EXPECT_TRUE(out[7].data == lower_medians<std::uint64_t>(models, 7, rows));
    EXPECT_TRUE(out[8].data == lower_medians<std::uint8_t>(models, 8, rows));
  }
}

TEST(Stream, ABoolThatIsNeither0Nor1CountsAsTrue) {
  const TemporaryFolder folder;
  const auto paths = write_models(folder, {{{"m", "BOOL", {2}, "\x02\x01"}},
                                           {{"m", "BOOL", {2}, std::string("\xff\x00", 2)}},
                                           {{"m", "BOOL", {2}, std::string("\x00\x00", 2)}}});
  aggregate_files(Median{}, paths, folder / "out");
  EXPECT_EQ(read_model(folder / "out")[0].data, std::string("\x01\x00", 2));
}

// Kinds of files
// ------------------------------------------------------------------------------------------------------

TEST(Stream, ShardedModelsGiveTheSameFileAsSingleOnes) {
  const TemporaryFolder folder;
  const auto models = make_models(5, layout_of("F32"), 6);
  std::vector<fs::path> single, sharded;
  for (std::size_t i = 0; i < models.size(); ++i) {
    single.push_back(folder / ("w" + std::to_string(i)));
    write_model(single.back(), models[i]);
    sharded.push_back(folder / ("s" + std::to_string(i)));
    fs::create_directory(sharded.back());
    Model parts[3];
    std::string index;
    for (std::size_t t = 0; t < models[i].size(); ++t) {
      parts[t % 3].push_back(models[i][t]);
      index +=
          (t > 0 ? ",\"" : "\"") + models[i][t].name + "\":\"p" + std::to_string(t % 3) + ".safetensors\"";
    }
    for (std::size_t k = 0; k < 3; ++k)
      write_model(sharded.back() / ("p" + std::to_string(k) + ".safetensors"), parts[k]);
    test::write_text(sharded.back() / "model.safetensors.index.json", "{\"weight_map\":{" + index + "}}");
  }
  FileOptions options;
  options.memory = mib;
  const Pipeline pipeline = parse("nnm(f=1) | trimmed_mean(f=1)");
  aggregate_files(pipeline, single, folder / "a", options);
  aggregate_files(pipeline, sharded, folder / "b", options);
  EXPECT_TRUE(test::read_text(folder / "a") == test::read_text(folder / "b"));
}

TEST(Stream, NpyPerWorkerAndOneMatrixGiveTheSameResult) {
  const TemporaryFolder folder;
  const auto models = make_models(6, {{"", "F32", {30001}, {}}}, 7);
  std::vector<fs::path> paths;
  std::string matrix;
  for (std::size_t i = 0; i < models.size(); ++i) {
    paths.push_back(folder / ("w" + std::to_string(i) + ".npy"));
    write_npy(paths.back(), {"", "F32", {30001}, models[i][0].data.data()});
    matrix += models[i][0].data;
  }
  write_npy(folder / "matrix.npy", {"", "F32", {6, 30001}, matrix.data()});
  FileOptions options;
  options.memory = mib;
  options.base = paths[0];
  const Pipeline pipeline = parse("clip(c=100) | trimmed_mean(f=1)");
  aggregate_files(pipeline, paths, folder / "a.npy", options);
  const fs::path one[] = {folder / "matrix.npy"};
  const FileResult result = aggregate_files(pipeline, one, folder / "b.npy", options);
  EXPECT_EQ(result.workers[5], (folder / "matrix.npy").string() + "[5]");
  EXPECT_TRUE(test::read_text(folder / "a.npy") == test::read_text(folder / "b.npy"));
  const Model out = read_model(folder / "a.npy");
  EXPECT_EQ(out[0].shape, std::vector<std::int64_t>{30001});
  expect_equal_tensors(out, run_plan(pipeline, models, &models[0], options));
}

TEST(Stream, NpyOfAnyShapePerWorkerIsOneTensor) {
  const TemporaryFolder folder;
  std::vector<fs::path> paths;
  const float values[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  for (int i = 0; i < 3; ++i) {
    paths.push_back(folder / (std::to_string(i) + ".npy"));
    write_npy(paths.back(), {"", "F32", {2, 2}, values + 4 * i});
  }
  aggregate_files(Median{}, paths, folder / "out.npy");
  const Model out = read_model(folder / "out.npy");
  EXPECT_EQ(out[0].shape, (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(std::memcmp(out[0].data.data(), values + 4, 16), 0);
}

TEST(Stream, OutputCarriesPipelineNumberAndVersion) {
  const TemporaryFolder folder;
  const auto models = make_models(3, {{"w", "F32", {5}, {}}}, 8);
  aggregate_files(parse("trimmed_mean(f=1)"), write_models(folder, models), folder / "out");
  const std::map<std::string, std::string> metadata = [&] {
    const Checkpoint read = Checkpoint::open(folder / "out");
    return std::map<std::string, std::string>(read.metadata().begin(), read.metadata().end());
  }();
  const std::map<std::string, std::string> expected = {{"bragg_pipeline", "trimmed_mean(f=1)"},
                                                       {"bragg_n", "3"},
                                                       {"bragg_version", BRAGG_VERSION_STRING},
                                                       {"format", "pt"}};
  EXPECT_EQ(metadata, expected);
  expect_equal_tensors(read_model(folder / "out"), run_plan(parse("trimmed_mean(f=1)"), models, nullptr, {}));
}

TEST(Stream, OutputTakesThePlaceOfNoInput) {
  const TemporaryFolder folder;
  const auto models = make_models(4, layout_of("F32"), 9);
  const auto paths = write_models(folder, models);
  FileOptions options;
  options.base = paths[3];
  fs::create_symlink(paths[1], folder / "link");
  const std::span<const fs::path> inputs(paths.data(), 3);
  for (const fs::path& output : {paths[1], paths[3], fs::path(folder / "link")}) {
    const auto [status, message] = failure_of([&] { aggregate_files(Median{}, inputs, output, options); });
    EXPECT_EQ(status, Status::invalid_argument) << output;
    const char* const role = output == paths[3] ? "is a file of the base" : "is a file of the input";
    EXPECT_NE(message.find(role), std::string::npos) << message;
  }
  for (std::size_t i = 0; i < models.size(); ++i) {
    for (std::size_t t = 0; t < models[i].size(); ++t)
      EXPECT_TRUE(read_model(paths[i])[t].data == models[i][t].data) << i << " " << t;
  }
}

// Failures
// ------------------------------------------------------------------------------------------------------------

TEST(Stream, DisagreementNamesFileTensorAndBothValues) {
  const Model layout = {{"a", "F32", {2, 3}, {}}, {"b", "I64", {}, {}}};
  const struct {
    Model layout;
    std::vector<const char*> says;
  } cases[] = {
      {{{"a", "F32", {3, 2}, {}}, {"b", "I64", {}, {}}}, {"tensor \"a\"", "[3, 2]", "[2, 3]"}},
      {{{"a", "F16", {2, 3}, {}}, {"b", "I64", {}, {}}}, {"tensor \"a\"", "F16", "F32"}},
      {{{"a", "F32", {2, 3}, {}}, {"b", "I32", {}, {}}}, {"tensor \"b\"", "I32", "I64"}},
      {{{"a", "F32", {2, 3}, {}}}, {"has no tensor \"b\""}},
      {{{"b", "I64", {}, {}}}, {"has no tensor \"a\""}},
      {{{"a", "F32", {2, 3}, {}}, {"b", "I64", {}, {}}, {"c", "F32", {}, {}}}, {"holds tensor \"c\""}},
      {{{"a", "F32", {2, 3}, {}}, {"aa", "F32", {}, {}}, {"b", "I64", {}, {}}}, {"holds tensor \"aa\""}},
  };
  const TemporaryFolder folder;
  write_model(folder / "first", make_models(1, layout, 10)[0]);
  fs::copy_file(folder / "first", folder / "third");
  for (const auto& each : cases) {
    write_model(folder / "second", make_models(1, each.layout, 10)[0]);
    for (const bool as_base : {false, true}) {
      FileOptions options;
      options.bad_inputs = BadInputs::error;
      std::vector<fs::path> paths = {folder / "first", folder / "second", folder / "third"};
      if (as_base) {
        options.base = paths[1];
        paths.resize(1);
      }
      const auto [status, message] =
          failure_of([&] { aggregate_files(Median{}, paths, folder / "out", options); });
      EXPECT_EQ(status, Status::bad_file);
      EXPECT_EQ(message.find((as_base ? "base: " : "") + (folder / "second").string()), 0u) << message;
      EXPECT_NE(message.find((folder / "first").string()), std::string::npos) << message;
      for (const char* part : each.says) EXPECT_NE(message.find(part), std::string::npos) << message;
    }
  }
  write_npy(folder / "second", {"", "F32", {}, "1234"});
  const std::vector<fs::path> mixed = {folder / "first", folder / "second"};
  EXPECT_EQ(failure_of([&] { aggregate_files(Median{}, mixed, folder / "out"); }).status, Status::bad_file);
  EXPECT_EQ(folder.entries(), 3);
}

TEST(Stream, TooManyNonfiniteWorkersAreNamedAndNothingIsWritten) {
  const TemporaryFolder folder;
  auto models = make_models(7, {{"v", "F32", {10}, {}}, {"w", "F32", {50000}, {}}}, 11);
  for (const std::size_t i : {1, 4}) {
    for (std::size_t k = 0; k < 3; ++k) test::store(DType::f32, models[i][1].data.data(), 40000 + k, NAN);
  }
  const auto paths = write_models(folder, models);
  for (const Scope scope : {Scope::whole, Scope::per_tensor}) {
    FileOptions options;
    options.options.scope = scope;
    for (const std::uint64_t memory : {mib, 64 * mib}) {
      options.memory = memory;
      const auto [status, message] =
          failure_of([&] { aggregate_files(parse("krum(f=1)"), paths, folder / "out", options); });
      EXPECT_EQ(status, Status::too_many_nonfinite);
      EXPECT_NE(message.find(paths[1].string() + " (3 values)"), std::string::npos) << message;
      EXPECT_NE(message.find(paths[4].string() + " (3 values)"), std::string::npos) << message;
      EXPECT_NE(message.find("2 of 7"), std::string::npos) << message;
      if (scope == Scope::per_tensor) {
        EXPECT_NE(message.find("tensor \"w\""), std::string::npos) << message;
      }
      EXPECT_EQ(folder.entries(), 7);
    }
  }
  const FileResult result = aggregate_files(parse("krum(f=2)"), paths, folder / "out");
  EXPECT_EQ(result.reports[0].rows[4].nonfinite, 3);
}

TEST(Stream, ANonfiniteBaseIsNamed) {
  const TemporaryFolder folder;
  auto models = make_models(4, {{"w", "F32", {10}, {}}}, 12);
  const auto paths = write_models(folder, models);
  test::store(DType::f32, models[0][0].data.data(), 3, INFINITY);
  write_model(folder / "base", models[0]);
  FileOptions options;
  options.base = folder / "base";
  const auto [status, message] =
      failure_of([&] { aggregate_files(parse("clip(c=1) | median"), paths, folder / "out", options); });
  EXPECT_EQ(status, Status::nonfinite_base);
  EXPECT_NE(message.find((folder / "base").string()), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(folder / "out"));
}

TEST(Stream, BadArgumentsAreRefusedBeforeAnythingIsWritten) {
  const TemporaryFolder folder;
  const auto paths = write_models(folder, make_models(40, {{"w", "F64", {10}, {}}}, 13));
  const auto fails = [&](const Pipeline& pipeline, const FileOptions& options,
                         std::span<const fs::path> inputs) {
    return failure_of([&] { aggregate_files(pipeline, inputs, folder / "out", options); }).status;
  };
  FileOptions options;
  EXPECT_EQ(fails(Median{}, options, {}), Status::invalid_argument);
  EXPECT_EQ(fails(TrimmedMean{.f = 20}, options, paths), Status::invalid_argument);
  options.memory = mib - 1;
  EXPECT_EQ(fails(Median{}, options, paths), Status::invalid_argument);
  options.memory = mib;  // 41 blocks of 64 KiB do not fit
  EXPECT_EQ(fails(Median{}, options, paths), Status::out_of_memory);
  options = {};
  options.weights = {1, 2};
  EXPECT_EQ(fails(Median{}, options, paths), Status::invalid_argument);
  options = {};
  options.out_dtype = "f12";
  EXPECT_EQ(fails(Median{}, options, paths), Status::invalid_argument);
  options.out_dtype = "I32";
  EXPECT_EQ(fails(Median{}, options, paths), Status::invalid_argument);
  options = {};
  options.weights.assign(40, 0.0);
  EXPECT_EQ(fails(Median{}, options, paths), Status::invalid_argument);
  EXPECT_EQ(failure_of([&] { aggregate_files(Median{}, paths, folder.path()); }).status,
            Status::invalid_argument);
  EXPECT_EQ(failure_of([&] { aggregate_files(Median{}, paths, folder / "none" / "out"); }).status,
            Status::io_error);
  EXPECT_EQ(failure_of([&] { aggregate_files(Median{}, paths, paths[0] / "out"); }).status, Status::io_error);
  EXPECT_EQ(folder.entries(), 40);
}

TEST(Stream, AFileThatChangesMeanwhileIsAnErrorAndNothingIsWritten) {
  const TemporaryFolder folder;
  const auto paths = write_models(folder, make_models(5, {{"w", "F32", {200000}, {}}}, 14));
  FileOptions options;
  options.memory = mib;
  options.bad_inputs = BadInputs::error;
  options.progress = [&](const Progress& progress) {
    if (progress.pass == 2) fs::resize_file(paths[3], 100000);
  };
  const auto [status, message] =
      failure_of([&] { aggregate_files(parse("multi_krum(f=0)"), paths, folder / "out", options); });
  EXPECT_EQ(status, Status::bad_file);
  EXPECT_EQ(message.find(paths[3].string()), 0u) << message;
  EXPECT_EQ(folder.entries(), 5);
}

TEST(Stream, ContentThatChangesMeanwhileIsSeenThoughItsTimeIsPutBack) {
  const TemporaryFolder folder;
  const auto paths = write_models(folder, make_models(5, {{"w", "F32", {200000}, {}}}, 14));
  FileOptions options;
  options.memory = mib;
  options.bad_inputs = BadInputs::error;
  options.progress = [&](const Progress& progress) {
    if (progress.pass != 2) return;
    struct stat before {};
    ASSERT_EQ(::stat(paths[3].c_str(), &before), 0);
    std::fstream file(paths[3], std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-4, std::ios::end).write("\xff\xff\x7f\x7f", 4);
    file.close();
    const std::array<timespec, 2> times = {before.st_atim, before.st_mtim};
    ASSERT_EQ(::utimensat(AT_FDCWD, paths[3].c_str(), times.data(), 0), 0);
  };
  const auto [status, message] =
      failure_of([&] { aggregate_files(parse("multi_krum(f=0)"), paths, folder / "out", options); });
  EXPECT_EQ(status, Status::bad_file);
  EXPECT_EQ(message, paths[3].string() + ": changed while it was being read");
}

TEST(Stream, WhatTheProgressCallbackThrowsLeavesNothing) {
  const TemporaryFolder folder;
  const auto paths = write_models(folder, make_models(3, layout_of("F32"), 15));
  FileOptions options;
  options.progress = [](const Progress& progress) {
    if (progress.bytes_done > 0) throw std::runtime_error("stop");
  };
  EXPECT_THROW(aggregate_files(Median{}, paths, folder / "out", options), std::runtime_error);
  EXPECT_EQ(folder.entries(), 3);
}

// Cost
// ----------------------------------------------------------------------------------------------------------------

TEST(Stream, ProgressGrowsToItsTotalAndInputsAreReadAtMostTwice) {
  const TemporaryFolder folder;
  const auto models = make_models(7, layout_of("F32"), 16);
  const auto paths = write_models(folder, models);
  std::uint64_t input = 0;
  for (const Tensor& tensor : models[0]) input += 7 * tensor.data.size();
  for (const char* text : {"median", "krum(f=2)", "nnm(f=2) | median"}) {
    for (const Scope scope : {Scope::whole, Scope::per_tensor}) {
      for (const std::uint64_t memory : {mib, 64 * mib}) {
        SCOPED_TRACE(testing::Message() << text << " " << memory);
        FileOptions options;
        options.memory = memory;
        options.options.scope = scope;
        Progress last;
        options.progress = [&](const Progress& progress) {
          EXPECT_GE(progress.bytes_done, last.bytes_done);
          EXPECT_LE(progress.bytes_done, progress.bytes_total);
          EXPECT_LE(progress.pass, progress.passes);
          last = progress;
        };
        const FileResult result = aggregate_files(parse(text), paths, folder / "out", options);
        EXPECT_EQ(last.bytes_done, last.bytes_total);
        EXPECT_EQ(last.bytes_done, result.bytes_read);
        const bool once = std::string_view(text) == "median" || memory == 64 * mib;
        EXPECT_GE(result.bytes_read, input);
        EXPECT_LE(result.bytes_read, once ? input : 2 * input);
      }
    }
  }
}

/// How many of the files the process has open.
std::size_t open_of(const std::vector<fs::path>& paths) {
  std::size_t count = 0;
  for (const fs::path& path : paths) {
    for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
      std::error_code gone;  // the folder's own
      count += fs::read_symlink(entry, gone) == fs::canonical(path) ? 1 : 0;
    }
  }
  return count;
}

// The system reads ahead of what stays open.
TEST(Stream, FilesStayOpenBetweenWindows) {
  const TemporaryFolder folder;
  const auto paths = write_models(folder, make_models(12, {{"w", "F32", {600000}, {}}}, 18));
  FileOptions options;
  options.memory = 4 * mib;
  std::size_t least = paths.size();
  int windows = 0;
  options.progress = [&](const Progress& progress) {
    if (progress.bytes_done == 0 || progress.bytes_done == progress.bytes_total) return;
    least = std::min(least, open_of(paths));
    ++windows;
  };
  aggregate_files(Median{}, paths, folder / "out", options);
  EXPECT_GT(windows, 3);
  EXPECT_EQ(least, paths.size());
}

TEST(Stream, ManyWorkersNeedFewDescriptors) {
  const TemporaryFolder folder;
  const auto paths = write_models(folder, make_models(80, {{"w", "F32", {100}, {}}}, 17));
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = 40;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  const auto [status, message] = failure_of([&] { aggregate_files(Median{}, paths, folder / "out"); });
  ::setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(status, Status::ok) << message;
}

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
/// A line of /proc/self/status, in bytes.
std::uint64_t memory_line(const std::string& name) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name + ":")) return std::stoull(line.substr(name.size() + 1)) * 1024;
  }
  return 0;
}

TEST(Stream, PeakMemoryStaysBelowTheBoundForFilesManyTimesLarger) {
  // 12 × 80 MB, most of it a hole of zeros: pages of a hole are read and counted like others.
  const TemporaryFolder folder;
  std::vector<fs::path> paths;
  constexpr std::int64_t rows = 20000, columns = 1000;
  const std::string header = R"({"m":{"dtype":"I32","shape":[250000],"data_offsets":[80000000,81000000]},)"
                             R"("w":{"dtype":"F32","shape":[20000,1000],"data_offsets":[0,80000000]}})";
  for (int i = 0; i < 12; ++i) {
    paths.push_back(folder / ("w" + std::to_string(i)));
    std::string data(4000, '\0');
    for (std::size_t k = 0; k < 1000; ++k)
      test::store(DType::f32, data.data(), k, i + 0.001 * static_cast<double>(k * i));
    test::write_text(paths.back(), safetensors_bytes(header, data));
    fs::resize_file(paths.back(), 8 + header.size() + 4 * rows * columns + 1000000);
  }
  for (const char* text : {"median", "nnm(f=2) | trimmed_mean(f=2)", "geometric_median"}) {
    for (const Scope scope : {Scope::whole, Scope::per_tensor}) {
      FileOptions options;
      options.memory = 64 * mib;
      options.options.scope = scope;
      ::malloc_trim(0);  // what earlier runs freed must not hide what this one takes
      std::ofstream("/proc/self/clear_refs") << 5;  // the peak starts anew from what is resident now
      const std::uint64_t before = memory_line("VmRSS");
      aggregate_files(parse(text), paths, folder / "out", options);
      const std::uint64_t peak = memory_line("VmHWM");
      ASSERT_GT(before, 0u);
      EXPECT_GE(peak, before);
      EXPECT_LT(peak - before, 64 * mib) << text;
      EXPECT_GT(peak - before, 4 * mib) << "the measurement sees the windows";
    }
  }
}
#endif

}  // namespace
