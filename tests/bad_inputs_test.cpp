// SPDX-License-Identifier: Apache-2.0
// An input that is no model of the agreed form is an infinite row: the output is that with a file full of
// NaN.
#include <gtest/gtest.h>
#include <sys/stat.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <bragg/io.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/failure.hpp"
#include "tests/support/files.hpp"
#include "tests/support/values.hpp"

namespace {

namespace fs = std::filesystem;
using namespace bragg;
using bragg::test::failure_of;
using bragg::test::read_text;
using bragg::test::safetensors_bytes;
using bragg::test::TemporaryFolder;
using bragg::test::write_text;

constexpr std::uint64_t mib = 1 << 20;
constexpr std::int64_t columns = 70000;  // several windows of 1 MiB

std::vector<float> values(int worker) {
  std::vector<float> row(columns);
  for (std::size_t k = 0; k < row.size(); ++k)
    row[k] = static_cast<float>(std::sin(1.0 + worker + 0.001 * static_cast<double>(k) * (worker + 1)));
  return row;
}

/// w: floats of several windows; h: 16 bits; steps: an integer.
void write_worker(const fs::path& path, const std::vector<float>& w, std::int64_t steps,
                  const char* prefix = "") {
  const std::string p = prefix;
  std::vector<std::uint16_t> h(50, w[0] == w[0] ? 0x3F80 : 0x7FC0);
  write_safetensors(path, std::vector<TensorToWrite>{{p + "w", "F32", {columns}, w.data()},
                                                     {p + "h", "BF16", {50}, h.data()},
                                                     {p + "steps", "I64", {}, &steps}});
}

struct Round {
  TemporaryFolder folder;
  std::vector<fs::path> paths;

  explicit Round(int n) {
    for (int i = 0; i < n; ++i) {
      paths.push_back(folder / (std::string("w") + static_cast<char>('a' + i) + ".safetensors"));
      write_worker(paths.back(), values(i), 10 * i);
    }
  }
  void make_nan(std::size_t i) const {
    write_worker(paths[i], std::vector<float>(columns, NAN), 10 * static_cast<std::int64_t>(i));
  }
  fs::path output() const { return folder / "out"; }
  FileResult aggregate(const char* pipeline, const FileOptions& options = {}) const {
    return aggregate_files(parse(pipeline), paths, output(), options);
  }
};

std::string floats_of(const fs::path& path) {
  const Checkpoint read = Checkpoint::open(path);
  std::string bytes;
  for (std::size_t t = 0; t < read.tensors().size(); ++t) {
    if (read.tensors()[t].dtype == "I64") continue;
    bytes.append(static_cast<const char*>(read.data(t)), static_cast<std::size_t>(read.tensors()[t].bytes));
  }
  return bytes;
}

std::int64_t steps_of(const fs::path& path) {
  const Checkpoint read = Checkpoint::open(path);
  std::int64_t steps = -1;
  for (std::size_t t = 0; t < read.tensors().size(); ++t) {
    if (read.tensors()[t].name == "steps") std::memcpy(&steps, read.data(t), 8);
  }
  return steps;
}

void expect_same_rows(const FileResult& result, const FileResult& expected,
                      const std::vector<std::size_t>& bad) {
  ASSERT_EQ(result.reports.size(), expected.reports.size());
  for (std::size_t t = 0; t < result.reports.size(); ++t) {
    const Report& a = result.reports[t];
    const Report& b = expected.reports[t];
    EXPECT_EQ(a.iterations, b.iterations);
    EXPECT_EQ(a.distance_error, b.distance_error);
    for (std::size_t i = 0; i < a.rows.size(); ++i) {
      EXPECT_EQ(a.rows[i].nonfinite, b.rows[i].nonfinite);
      EXPECT_EQ(a.rows[i].clip_factor, b.rows[i].clip_factor);
      if (std::find(bad.begin(), bad.end(), i) != bad.end()) {
        EXPECT_EQ(a.rows[i].weight, 0);
        EXPECT_FALSE(a.rows[i].selected);
        EXPECT_NE(result.bad[i], "");
        continue;
      }
      EXPECT_EQ(a.rows[i].weight, b.rows[i].weight);
      EXPECT_EQ(result.bad[i], "");
    }
  }
}

// A bad input is an infinite row
// -----------------------------------------------------------------------------------------

class IsARowOfNaN : public testing::TestWithParam<const char*> {};

TEST_P(IsARowOfNaN, BitForBitWhereverItStands) {
  for (const std::vector<std::size_t>& bad : {std::vector<std::size_t>{0}, {4}, {2, 8}}) {
    for (const bool with_base : {false, true}) {
      if (with_base && bad[0] != 4) continue;
      const Round round(9);
      FileOptions options;
      if (with_base) {
        options.base = round.folder / "base";
        write_worker(*options.base, values(20), 5);
      }
      for (const Scope scope : {Scope::whole, Scope::per_tensor}) {
        for (const std::uint64_t memory : {mib, 64 * mib}) {
          SCOPED_TRACE(testing::Message()
                       << "first " << bad[0] << " base " << with_base << " memory " << memory);
          options.memory = memory;
          options.options.scope = scope;
          for (const std::size_t i : bad) round.make_nan(i);
          const FileResult expected = round.aggregate(GetParam(), options);
          const std::string floats = floats_of(round.output());
          for (const std::size_t i : bad) write_text(round.paths[i], "");
          std::uint64_t total = 0;
          options.progress = [&](const Progress& progress) { total = progress.bytes_total; };
          const FileResult result = round.aggregate(GetParam(), options);
          options.progress = nullptr;
          EXPECT_TRUE(floats_of(round.output()) == floats);
          expect_same_rows(result, expected, bad);
          EXPECT_EQ(result.bytes_read, total);
          EXPECT_LT(result.bytes_read, expected.bytes_read);
          // It has no vote: the lower median of 0, 10, … 80 without it.
          EXPECT_EQ(steps_of(round.output()), bad.size() == 2 || bad[0] == 0 ? 40 : 30);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Pipelines, IsARowOfNaN,
                         testing::Values("median", "trimmed_mean(f=2)", "phocas(f=2)", "krum(f=2)",
                                         "nnm(f=2) | trimmed_mean(f=2)", "geometric_median",
                                         "clip(c=20) | mean", "centered_clipping(tau=10, iters=3)",
                                         "bucketing(s=2, seed=5) | median", "arc(f=2) | median",
                                         "dnc(f=2, sample=500)"));

TEST(BadInputs, AreFilesOfEveryKind) {
  const std::string whole = [] {
    const Round one(1);
    return read_text(one.paths[0]);
  }();
  const std::string pickle = std::string("PK\x03\x04") + std::string(26, '\0') + "archive/data.pkl";
  const struct {
    std::function<void(const fs::path&)> make;
    const char* reason;
  } kinds[] = {
      {[](const fs::path& path) { fs::remove(path); }, "No such file"},
      {[](const fs::path& path) {
         fs::remove(path);
         fs::create_directory(path);
       },
       "this folder holds"},
      {[](const fs::path& path) {
         fs::remove(path);
         ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
       },
       "is not a regular file"},
      {[](const fs::path& path) { write_text(path, ""); }, "is empty"},
      {[&](const fs::path& path) { write_text(path, whole.substr(0, whole.size() - 1)); }, "are not within"},
      {[&](const fs::path& path) { write_text(path, whole + "x"); }, "but the file at"},
      {[&](const fs::path& path) { write_text(path, whole.substr(0, 40)); }, "is longer than the"},
      {[&](const fs::path& path) { write_text(path, pickle); }, "PyTorch file"},
      {[](const fs::path& path) { write_text(path, safetensors_bytes("{}", "")); }, "has no tensor \"h\""},
      {[](const fs::path& path) { write_worker(path, values(1), 3, "module."); },
       "all its names begin with \"module.\""},
      {[](const fs::path& path) {
         write_npy(path, {"", "F32", {3}, "123412341234"});
       },
       "is npy, but"},
      {[](const fs::path& path) {
         write_safetensors(path, std::vector<TensorToWrite>{{"w", "F64", {1}, "12345678"}});
       },
       "tensor \"w\" has dtype F64, but F32 in"},
      {[](const fs::path& path) {
         write_text(path,
                    safetensors_bytes(R"({"w":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}})", "x"));
       },
       "F8_E4M3"},
  };
  for (const auto& kind : kinds) {
    for (const std::size_t at : {0, 2, 4}) {
      SCOPED_TRACE(testing::Message() << kind.reason << " at " << at);
      const Round round(5);
      kind.make(round.paths[at]);
      FileOptions options;
      std::vector<std::string> found;
      options.found_bad = [&](std::size_t row, const std::string& name, const std::string& reason) {
        EXPECT_EQ(row, at);
        EXPECT_EQ(name, round.paths[at].string());
        found.push_back(reason);
      };
      const FileResult result = round.aggregate("nnm(f=1) | trimmed_mean(f=1)", options);
      ASSERT_EQ(found.size(), 1u);
      EXPECT_EQ(result.bad[at], found[0]);
      EXPECT_NE(found[0].find(kind.reason), std::string::npos) << found[0];
      EXPECT_NE(found[0].find(round.paths[at].string()), 0u) << found[0];
      for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(result.bad[i].empty(), i != at);
      options.bad_inputs = BadInputs::error;
      const auto [status, message] = failure_of([&] { round.aggregate("median", options); });
      EXPECT_TRUE(status == Status::bad_file || status == Status::io_error || status == Status::unsupported);
      EXPECT_EQ(message.find(round.paths[at].string()), 0u) << message;
    }
  }
}

TEST(BadInputs, AreToleratedAsManyAsThePipelineGivesNoWeightTo) {
  const struct {
    const char* pipeline;
    std::size_t most;
  } cases[] = {{"mean", 0},
               {"median", 4},
               {"median(even=lower)", 4},
               {"trimmed_mean(f=2)", 2},
               {"meamed(f=3)", 3},
               {"phocas(f=1)", 1},
               {"krum(f=3)", 3},
               {"dnc(f=3)", 3},
               {"bulyan(f=1)", 1},
               {"geometric_median", 4},
               {"nnm(f=2) | mean", 2},
               {"nnm(f=2) | median", 2},
               {"clip(c=1) | mean", 8},
               {"clip(c=1) | median", 8},
               {"arc(f=2) | mean", 2},
               {"centered_clipping(tau=1)", 8},
               {"bucketing(s=3, permutation=[0,1,2,3,4,5,6,7,8]) | mean", 2},
               {"bucketing(s=3, permutation=[0,1,2,3,4,5,6,7,8]) | median", 5}};
  for (const auto& each : cases) {
    const Round round(9);
    const fs::path base = round.folder / "base";  // the form, where no majority is left
    write_worker(base, values(20), 5);
    FileOptions options;
    options.base = base;
    for (std::size_t bad = 0; bad <= 9; ++bad) {
      SCOPED_TRACE(testing::Message() << each.pipeline << " with " << bad);
      if (bad > 0) write_text(round.paths[bad - 1], "no model");
      const auto [status, message] = failure_of([&] { round.aggregate(each.pipeline, options); });
      EXPECT_EQ(status, bad <= each.most ? Status::ok : Status::too_many_nonfinite) << message;
      if (bad <= each.most) continue;
      EXPECT_NE(message.find(std::to_string(bad) + " of 9 are bad inputs: " + round.paths[0].string() +
                             " (header length"),
                std::string::npos)
          << message;
      break;
    }
  }
}

TEST(BadInputs, CountWhereThereAreNoCoordinates) {
  const TemporaryFolder folder;
  std::vector<fs::path> paths;
  for (std::int64_t i = 0; i < 5; ++i) {
    paths.push_back(folder / std::to_string(i));
    write_safetensors(paths.back(), std::vector<TensorToWrite>{{"steps", "I64", {}, &i}});
  }
  write_text(paths[0], "");
  const FileResult result = aggregate_files(parse("krum(f=1)"), paths, folder / "out");
  EXPECT_EQ(steps_of(folder / "out"), 2);
  EXPECT_FALSE(result.reports[0].rows[0].selected);
  write_text(paths[4], "");
  EXPECT_EQ(failure_of([&] { aggregate_files(parse("krum(f=1)"), paths, folder / "out"); }).status,
            Status::too_many_nonfinite);
}

TEST(BadInputs, AreNoPivot) {
  const Round round(7);
  write_text(round.paths[3], "");
  EXPECT_EQ(failure_of([&] { round.aggregate("monna(f=2, pivot=3)"); }).status, Status::nonfinite_pivot);
  EXPECT_EQ(failure_of([&] { round.aggregate("nnm(f=2) | monna(f=2, pivot=3)"); }).status,
            Status::nonfinite_pivot);
  EXPECT_FALSE(fs::exists(round.output()));
  round.aggregate("monna(f=2, pivot=4)");
}

TEST(BadInputs, OfWeightZeroDoNotCount) {
  const Round round(4);
  write_text(round.paths[0], "");
  FileOptions options;
  options.weights = {0, 1, 1, 1};
  options.bad_inputs = BadInputs::error;
  const FileResult result = round.aggregate("mean", options);
  EXPECT_EQ(result.bad[0], "");  // it is not opened
  // Nor do they have a say in the agreed form.
  for (const std::size_t i : {1, 2}) write_worker(round.paths[i], values(3), 3, "other.");
  options.weights = {0, 0, 0, 1};
  round.aggregate("mean", options);
  EXPECT_EQ(Checkpoint::open(round.output()).tensors()[0].name, "h");
}

// The agreed form
// -----------------------------------------------------------------------------------------

TEST(Form, IsTheBasesElseThatOfMoreThanHalf) {
  const Round round(5);
  for (const std::size_t i : {0, 1}) write_worker(round.paths[i], values(3), 3, "other.");
  FileResult result = round.aggregate("median");
  EXPECT_NE(result.bad[0], "");
  EXPECT_NE(result.bad[1], "");
  EXPECT_EQ(Checkpoint::open(round.output()).tensors()[0].name, "h");
  FileOptions options;
  options.base = round.paths[4];
  const std::vector<fs::path> four(round.paths.begin(), round.paths.begin() + 4);
  const auto [status, message] = failure_of([&] { aggregate_files(parse("median"), four, round.output()); });
  EXPECT_EQ(status, Status::bad_file);
  for (const std::string& words :
       {"2 like " + round.paths[0].string(), "2 like " + round.paths[2].string(),
        std::string("more than half of the 4"), std::string("which is missing from")})
    EXPECT_NE(message.find(words), std::string::npos) << message;
  write_worker(round.folder / "base", values(9), 9, "other.");
  options.base = round.folder / "base";
  result = aggregate_files(parse("clip(c=9) | median"), round.paths, round.output(), options);
  EXPECT_EQ(result.bad[0], "");
  EXPECT_NE(result.bad[3], "");
  write_text(*options.base, "");
  EXPECT_EQ(failure_of([&] { round.aggregate("median", options); }).status, Status::bad_file);
}

TEST(Form, IsOneWhateverTheOrderOfTensorsAndFiles) {
  const Round round(3);
  const std::string header = R"({"steps":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
                             R"("h":{"dtype":"BF16","shape":[50],"data_offsets":[8,108]},)"
                             R"("w":{"dtype":"F32","shape":[70000],"data_offsets":[108,280108]}})";
  std::string data(280108, '\0');
  std::memcpy(data.data() + 108, values(1).data(), 280000);
  write_text(round.paths[1], safetensors_bytes(header, data));
  const FileResult result = round.aggregate("median");
  EXPECT_EQ(result.bad[1], "");
  EXPECT_EQ(steps_of(round.output()), 0);  // of 0, 0 and 20
}

// A file that fails while it is read
// -----------------------------------------------------------------------------------------

class Meanwhile : public testing::TestWithParam<const char*> {};

TEST_P(Meanwhile, AnInputThatChangesIsABadRowFromTheStart) {
  for (const int when : {0, 1, 2}) {  // before it is read, within pass 1, in the last pass
    for (const Scope scope : {Scope::whole, Scope::per_tensor}) {
      SCOPED_TRACE(testing::Message() << when << " " << (scope == Scope::per_tensor));
      const Round expected_round(7);
      expected_round.make_nan(3);
      FileOptions options;
      options.memory = mib;
      options.options.scope = scope;
      const FileResult expected = expected_round.aggregate(GetParam(), options);

      const Round round(7);
      bool changed = false;
      Progress last;
      int found = 0;
      options.found_bad = [&](std::size_t row, const std::string&, const std::string& reason) {
        EXPECT_EQ(row, 3u);
        EXPECT_NE(reason.find("changed while"), std::string::npos) << reason;
        ++found;
      };
      options.progress = [&](const Progress& progress) {
        EXPECT_GE(progress.bytes_done, last.bytes_done);
        EXPECT_LE(progress.bytes_done, progress.bytes_total);
        last = progress;
        const bool now =
            when == 0 || (when == 1 ? progress.bytes_done > 100000 : progress.pass == progress.passes);
        if (changed || !now) return;
        changed = true;
        fs::resize_file(round.paths[3], 1000);
      };
      const FileResult result = round.aggregate(GetParam(), options);
      EXPECT_EQ(found, 1);
      expect_same_rows(result, expected, {3});
      EXPECT_TRUE(floats_of(round.output()) == floats_of(expected_round.output()));
      EXPECT_EQ(steps_of(round.output()), 20);
      EXPECT_EQ(last.bytes_done, last.bytes_total);
      EXPECT_EQ(result.bytes_read, last.bytes_done);
      if (when == 0) {
        EXPECT_LT(result.bytes_read, expected.bytes_read);  // there was no second start
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Pipelines, Meanwhile,
                         testing::Values("median", "geometric_median", "nnm(f=2) | trimmed_mean(f=2)"));

TEST(Form, IsOfNoInputThatChangedSinceItWasCompared) {
  const auto write_other = [](const fs::path& path) { write_worker(path, values(0), 0, "other."); };
  const std::function<void(const fs::path&)> changes[] = {
      [](const fs::path& path) { fs::remove(path); },
      [](const fs::path& path) { fs::resize_file(path, 3); },
      [](const fs::path& path) { write_text(path, "none"); },
      [](const fs::path& path) { fs::remove(path), fs::create_directory(path); },
      write_other,
  };
  for (const auto& change : changes) {
    for (const std::size_t owners : {1U, 2U}) {
      Round round(8);
      write_text(round.paths.back(), "found to be bad when all the others have been compared");
      FileOptions options;
      options.found_bad = [&](std::size_t row, const std::string&, const std::string&) {
        for (std::size_t i = 0; row == 7 && i < owners; ++i) change(round.paths[i]);
      };
      FileResult result;
      ASSERT_NO_THROW(result = round.aggregate("trimmed_mean(f=3)", options));
      for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(result.bad[i].empty(), i >= owners && i != 7) << i;
      EXPECT_TRUE(result.form.starts_with("3 tensors"));
    }
  }
}

TEST(Restart, EachInputMayFailInItsTurn) {
  const Round round(9);
  FileOptions options;
  options.memory = mib;
  std::size_t next = 0;
  options.progress = [&](const Progress& progress) {
    if (progress.bytes_done > next * 1200000 && next < 2) fs::resize_file(round.paths[next++ * 5], 10);
  };
  const FileResult result = round.aggregate("krum(f=2)", options);
  EXPECT_NE(result.bad[0], "");
  EXPECT_NE(result.bad[5], "");
}

// Partial models
// -----------------------------------------------------------------------------------------

TEST(Partial, AnInputThatChangesIsABadRowOfAllTensors) {
  for (const char* const pipeline : {"krum(f=2)", "median", "nnm(f=1) | trimmed_mean(f=1)"}) {
    for (const std::uint64_t when : {0, 1000, 400000, 1500000}) {
      SCOPED_TRACE(testing::Message() << pipeline << " at " << when);
      const Round round(9);
      const std::vector<float> w = values(2);
      const std::vector<std::uint16_t> h(50, 0x4000);
      const std::int64_t steps = 7;
      write_safetensors(round.paths[2], std::vector<TensorToWrite>{{"w", "F32", {columns}, w.data()},
                                                                   {"steps", "I64", {}, &steps}});
      write_safetensors(round.paths[5], std::vector<TensorToWrite>{{"h", "BF16", {50}, h.data()}});
      FileOptions options;
      options.memory = mib;
      options.partial = true;
      write_text(round.paths[7], "");
      const FileResult expected = round.aggregate(pipeline, options);
      const std::string floats = floats_of(round.output());
      write_worker(round.paths[7], values(7), 70);
      Progress last;
      bool changed = false;
      options.progress = [&](const Progress& progress) {
        EXPECT_GE(progress.bytes_done, last.bytes_done);
        EXPECT_LE(progress.bytes_done, progress.bytes_total);
        last = progress;
        if (changed || progress.bytes_done < when) return;
        changed = true;
        fs::resize_file(round.paths[7], 10);
      };
      const FileResult result = round.aggregate(pipeline, options);
      EXPECT_TRUE(changed);
      EXPECT_TRUE(floats_of(round.output()) == floats);
      EXPECT_EQ(steps_of(round.output()), 30);  // the lower median of 0 10 7 30 40 60 80
      expect_same_rows(result, expected, {7});
      for (const auto& [t, row] :
           {std::pair(std::size_t{0}, std::size_t{2}), std::pair(std::size_t{1}, std::size_t{5})}) {
        const HeldTensors& held = result.held.at(result.held_with.at(t));
        EXPECT_EQ(held.absent, std::vector<std::size_t>{row});
        EXPECT_EQ(held.n, 8u);
      }
      EXPECT_EQ(last.bytes_done, last.bytes_total);
    }
  }
}

// Cost
// -----------------------------------------------------------------------------------------

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
/// A line of /proc/self/status, in bytes.
std::uint64_t memory_line(const std::string& name) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name + ":")) return std::stoull(line.substr(name.size() + 1)) * 1024;
  }
  return 0;
}

// It is the first of the inputs that agree: the form is taken from its file.
TEST(Cost, TensorsThatAreLeftOutTakeNoMemory) {
  const Round round(5);
  std::string header = R"({"steps":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
                       R"("h":{"dtype":"BF16","shape":[50],"data_offsets":[8,108]},)"
                       R"("w":{"dtype":"F32","shape":[70000],"data_offsets":[108,280108]},)";
  for (int i = 0; header.size() < 60'000'000; ++i)
    header += "\"layer." + std::to_string(i) + R"(":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},)";
  header.back() = '}';
  write_text(round.paths[0], safetensors_bytes(header, std::string(280108, '\0')));
  FileOptions options;
  options.memory = 64 * mib;
  options.exclude = {"layer.*"};
  ::malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << 5;
  const std::uint64_t before = memory_line("VmRSS");
  const FileResult result = round.aggregate("median", options);
  const std::uint64_t peak = memory_line("VmHWM");
  EXPECT_EQ(result.bad[0], "");
  ASSERT_GT(before, 0u);
  EXPECT_LT(peak - before, 64 * mib + 64 * mib);
  EXPECT_EQ(Checkpoint::open(round.output()).tensors().size(), 3u);
}

TEST(Cost, AStrangersHeaderTakesNoMemory) {
  const std::string entry = R"(:{"dtype":"F32","shape":[0],"data_offsets":[0,0]},)";
  std::string tensors = "{", keys = R"({"__metadata__":{)", map = R"({"weight_map":{)";
  for (int i = 0; tensors.size() < 45'000'000; ++i) {
    const std::string name = "\"layer." + std::to_string(i) + ".weight\"";
    tensors += name + entry;
    if (keys.size() < 45'000'000) keys += name + ":\"x\",";
    if (map.size() < 45'000'000) map += name + ":\"wa.safetensors\",";
  }
  tensors.back() = keys.back() = map.back() = '}';
  keys += '}';
  map += '}';
  std::string long_name = "{\"";
  long_name.resize(45'000'000, 'x');
  long_name += R"(":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})";
  for (const bool with_base : {false, true}) {
    for (const std::string* header : {&tensors, &keys, &long_name, &map}) {
      const Round round(5);
      FileOptions options;
      options.memory = 32 * mib;
      if (with_base) {
        options.base = round.folder / "base";
        fs::copy_file(round.paths[1], *options.base);
      }
      std::vector<fs::path> paths = round.paths;
      if (header == &map) {
        paths[4] = round.folder / "model.safetensors.index.json";
        write_text(paths[4], *header);
      } else {
        write_text(paths[4], safetensors_bytes(*header, ""));
      }
      ::malloc_trim(0);
      std::ofstream("/proc/self/clear_refs") << 5;
      const std::uint64_t before = memory_line("VmRSS");
      const FileResult result = aggregate_files(parse("median"), paths, round.output(), options);
      const std::uint64_t peak = memory_line("VmHWM");
      EXPECT_NE(result.bad[4], "");
      ASSERT_GT(before, 0u);
      EXPECT_LT(peak - before, 32 * mib + 32 * mib) << result.bad[4];
    }
  }
}

/// By how much a run of partial models raises the peak.
std::uint64_t peak_of_partial(const Round& round, const std::vector<std::size_t>& strangers,
                              const std::string& header) {
  FileOptions options;
  options.memory = mib;
  options.partial = true;
  for (const std::size_t i : strangers) write_text(round.paths[i], header);
  ::malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << 5;
  const std::uint64_t before = memory_line("VmRSS");
  const FileResult result = round.aggregate("median", options);
  const std::uint64_t peak = memory_line("VmHWM");
  for (const std::size_t i : strangers) EXPECT_NE(result.bad[i], "");
  EXPECT_GT(before, 0u);
  return peak - before;
}

TEST(Cost, AStrangersTensorsTakeNoMemoryOfPartialModels) {
  std::string header = "{";
  for (int i = 0; header.size() < 22'000'000; ++i)
    header += "\"layer." + std::to_string(i) + R"(":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},)";
  header.back() = '}';
  header = safetensors_bytes(header, "");
  for (const std::vector<std::size_t>& strangers :
       std::vector<std::vector<std::size_t>>{{0}, {6}, {0, 3, 6}}) {
    const Round round(7);
    EXPECT_LT(peak_of_partial(round, strangers, header), 16 * mib) << testing::PrintToString(strangers);
  }
}
#endif

}  // namespace
