// SPDX-License-Identifier: Apache-2.0
// Reading and writing of safetensors and npy: round trips, every kind of malformed file, random damage.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <bragg/io.hpp>

#include <array>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "host/io/file.hpp"
#include "tests/support/failure.hpp"
#include "tests/support/files.hpp"
#include "tests/support/seed.hpp"

namespace {

namespace fs = std::filesystem;
using namespace bragg;
using bragg::test::Failure;
using bragg::test::failure_of;
using bragg::test::npy_bytes;
using bragg::test::read_text;
using bragg::test::safetensors_bytes;
using bragg::test::TemporaryFolder;
using bragg::test::write_text;

const char* const all_dtypes[] = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32",
                                  "I16", "I8",  "U64", "U32",  "U16",     "U8",      "BOOL"};
constexpr std::int64_t dtype_bytes[] = {8, 4, 2, 2, 1, 1, 8, 4, 2, 1, 8, 4, 2, 1, 1};

std::string counted_bytes(std::int64_t count) {
  std::string bytes;
  for (std::int64_t i = 0; i < count; ++i) bytes += static_cast<char>(i * 37 + 11);
  return bytes;
}

// Round trips
// ------------------------------------------------------------------------------------------------

TEST(Safetensors, EveryDtypeReadsBackAsItWasWritten) {
  const TemporaryFolder folder;
  std::vector<std::string> data;
  std::vector<TensorToWrite> tensors;
  for (std::size_t k = 0; k < std::size(all_dtypes); ++k) data.push_back(counted_bytes(6 * dtype_bytes[k]));
  for (std::size_t k = 0; k < std::size(all_dtypes); ++k) {
    tensors.push_back({std::string("t.") + all_dtypes[k], all_dtypes[k], {2, 3}, data[k].data()});
  }
  tensors.push_back({"scalar", "F32", {}, data[1].data()});
  tensors.push_back({"empty", "F64", {3, 0}, data[0].data()});
  tensors.push_back({"naïve \"\\\n", "U8", {1}, data[0].data()});
  const std::vector<std::pair<std::string, std::string>> metadata = {{"format", "pt"}, {"note", "ü \"\\"}};
  write_safetensors(folder / "m.safetensors", tensors, metadata);

  const Checkpoint read = Checkpoint::open(folder / "m.safetensors");
  ASSERT_EQ(read.tensors().size(), tensors.size());
  EXPECT_EQ(read.metadata(), metadata);
  for (std::size_t t = 1; t < read.tensors().size(); ++t)
    EXPECT_LT(read.tensors()[t - 1].name, read.tensors()[t].name);
  for (const TensorToWrite& written : tensors) {
    std::size_t t = 0;
    while (read.tensors()[t].name != written.name) ASSERT_LT(++t, read.tensors().size()) << written.name;
    const TensorInfo& info = read.tensors()[t];
    EXPECT_EQ(info.dtype, written.dtype);
    EXPECT_EQ(info.shape, written.shape);
    EXPECT_EQ(std::memcmp(read.data(t), written.data, static_cast<std::size_t>(info.bytes)), 0)
        << written.name;
  }
}

TEST(Safetensors, IsWrittenAlignedAndWithoutHoles) {
  const TemporaryFolder folder;
  const std::string data = counted_bytes(64);
  const std::vector<TensorToWrite> tensors = {
      {"a", "BOOL", {3}, data.data()}, {"b", "F32", {5}, data.data()}, {"c", "F64", {1}, data.data()}};
  write_safetensors(folder / "m.safetensors", tensors);
  const std::string bytes = read_text(folder / "m.safetensors");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ(length % 8, 0u);
  const auto header = nlohmann::json::parse(bytes.substr(8, length));
  EXPECT_EQ(header["c"]["data_offsets"], nlohmann::json({0, 8}));
  EXPECT_EQ(header["b"]["data_offsets"], nlohmann::json({8, 28}));
  EXPECT_EQ(header["a"]["data_offsets"], nlohmann::json({28, 31}));
  EXPECT_EQ(bytes.size(), 8 + length + 31);
}

TEST(Safetensors, OfNoTensorsAtAllIsLegal) {
  const TemporaryFolder folder;
  write_safetensors(folder / "m.safetensors", {});
  EXPECT_EQ(Checkpoint::open(folder / "m.safetensors").tensors().size(), 0u);
}

TEST(Safetensors, HeaderMayBePaddedAndItsTensorsInAnyOrder) {
  const TemporaryFolder folder;
  write_text(folder / "m.safetensors",
             safetensors_bytes(R"({"b":{"data_offsets":[2,6],"shape":[1],"dtype":"F32"},"__metadata__":null,)"
                               R"("a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]}}   )",
                               "\x01\x02----"));
  const Checkpoint read = Checkpoint::open(folder / "m.safetensors");
  ASSERT_EQ(read.tensors().size(), 2u);
  EXPECT_EQ(std::memcmp(read.data(0), "\x01\x02", 2), 0);
  EXPECT_EQ(std::memcmp(read.data(1), "----", 4), 0);
}

TEST(Npy, EveryDtypeAndShapeReadsBackAsItWasWritten) {
  const TemporaryFolder folder;
  const std::vector<std::vector<std::int64_t>> shapes = {{}, {0}, {6}, {2, 3}, {1, 2, 3}};
  for (std::size_t k = 0; k < std::size(all_dtypes); ++k) {
    const std::string_view dtype = all_dtypes[k];
    if (dtype == "BF16" || dtype.starts_with("F8")) continue;
    for (const auto& shape : shapes) {
      const std::string data = counted_bytes(6 * dtype_bytes[k]);
      write_npy(folder / "a.npy", {"ignored", all_dtypes[k], shape, data.data()});
      const Checkpoint read = Checkpoint::open(folder / "a.npy");
      ASSERT_EQ(read.tensors().size(), 1u);
      EXPECT_EQ(read.tensors()[0].name, "");
      EXPECT_EQ(read.tensors()[0].dtype, all_dtypes[k]);
      EXPECT_EQ(read.tensors()[0].shape, shape);
      EXPECT_EQ(std::memcmp(read.data(0), data.data(), static_cast<std::size_t>(read.tensors()[0].bytes)), 0);
      EXPECT_EQ(read_text(folder / "a.npy").find('\n') % 64, 63u);
    }
  }
}

TEST(Npy, VersionsTwoAndThreeAndOtherSpellingsAreRead) {
  const TemporaryFolder folder;
  const char* const dicts[] = {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n",
                               "{\"shape\":(2,),'fortran_order':False,'descr':\"<f4\"}"};
  for (const char version : {'\1', '\2', '\3'}) {
    for (const char* dict : dicts) {
      write_text(folder / "a.npy", npy_bytes(dict, "12345678", version));
      const Checkpoint read = Checkpoint::open(folder / "a.npy");
      EXPECT_EQ(read.tensors()[0].shape, std::vector<std::int64_t>{2});
      EXPECT_EQ(std::memcmp(read.data(0), "12345678", 8), 0);
    }
  }
}

TEST(Npy, FortranOrderIsReadWhereBothOrdersAreOne) {
  const TemporaryFolder folder;
  for (const char* shape : {"(2,)", "(2, 1)", "(1, 2)", "(1, 2, 1)"}) {
    write_text(folder / "a.npy",
               npy_bytes(std::string("{'descr': '<f4', 'fortran_order': True, 'shape': ") + shape + "}",
                         "12345678"));
    const Checkpoint read = Checkpoint::open(folder / "a.npy");
    EXPECT_EQ(read.tensors()[0].elements, 2) << shape;
    EXPECT_EQ(std::memcmp(read.data(0), "12345678", 8), 0) << shape;
  }
  for (const char* shape : {"()", "(0, 2)"}) {
    write_text(folder / "a.npy",
               npy_bytes(std::string("{'descr': '|u1', 'fortran_order': True, 'shape': ") + shape + "}",
                         shape[1] == ')' ? "1" : ""));
    EXPECT_EQ(Checkpoint::open(folder / "a.npy").tensors().size(), 1u) << shape;
  }
}

// Sharded models
// -----------------------------------------------------------------------------------------------

struct ShardedModel {
  TemporaryFolder folder;
  std::string data = counted_bytes(64);

  ShardedModel() {
    const std::vector<TensorToWrite> first = {{"b", "F32", {4}, data.data()},
                                              {"d", "I64", {}, data.data() + 16}};
    const std::vector<TensorToWrite> second = {{"a", "F16", {3}, data.data() + 24},
                                               {"c", "F32", {1}, data.data() + 32}};
    const std::pair<std::string, std::string> format{"format", "pt"};
    const std::pair<std::string, std::string> part{"part", "2"};
    write_safetensors(folder / "one.safetensors", first, std::vector{format});
    write_safetensors(folder / "two.safetensors", second, std::vector{format, part});
    index(R"({"metadata":{"total_size":34,"more":[{"x":null},1.5,true,-1,"s"]},"weight_map":)"
          R"({"a":"two.safetensors","b":"one.safetensors","c":"two.safetensors","d":"one.safetensors"}})");
  }
  fs::path index() const { return folder / "model.safetensors.index.json"; }
  void index(const std::string& text) const { write_text(index(), text); }
};

TEST(Sharded, IsReadByItsIndexOrItsFolder) {
  const ShardedModel model;
  for (const fs::path& path : {model.index(), model.folder.path()}) {
    const Checkpoint read = Checkpoint::open(path);
    EXPECT_EQ(read.path(), path);
    ASSERT_EQ(read.tensors().size(), 4u);
    const char* const names[] = {"a", "b", "c", "d"};
    const std::size_t at[] = {24, 0, 32, 16};
    for (std::size_t t = 0; t < 4; ++t) {
      EXPECT_EQ(read.tensors()[t].name, names[t]);
      EXPECT_EQ(std::memcmp(read.data(t), model.data.data() + at[t],
                            static_cast<std::size_t>(read.tensors()[t].bytes)),
                0);
    }
    EXPECT_EQ(read.metadata(), (std::vector<std::pair<std::string, std::string>>{{"format", "pt"}}));
  }
}

TEST(Sharded, AFolderOfOneSafetensorsFileIsThatFile) {
  const TemporaryFolder folder;
  write_safetensors(folder / "any name.safetensors", std::vector<TensorToWrite>{{"a", "U8", {1}, "x"}});
  EXPECT_EQ(Checkpoint::open(folder.path()).tensors().size(), 1u);
}

TEST(Sharded, EveryMalformedIndexIsRefusedWithItsReason) {
  const struct {
    const char* index;
    const char* says;
  } cases[] = {
      {"", "not valid JSON at byte 0"},
      {"{", "not valid JSON at byte 1"},
      {"[]", "expected an object"},
      {"{}", "has no \"weight_map\""},
      {R"({"weight_map":{}})", "the weight_map is empty"},
      {R"({"weight_map":[]})", "weight_map is an array"},
      {R"({"weight_map":"x"})", "weight_map is a string"},
      {R"({"weight_map":{"a":1}})", "tensor \"a\" is 1, expected a file name"},
      {R"({"weight_map":{"a":{}}})", "tensor \"a\" is an object"},
      {R"({"weight_map":{"a":null}})", "tensor \"a\" is null"},
      {R"({"weight_map":{"a":"two.safetensors","a":"one.safetensors"}})", "tensor \"a\" is there twice"},
      {R"({"weight_map":{"a":"one.safetensors"},"weight_map":{}})", "the key \"weight_map\" is there twice"},
      {R"({"weight_map":{"a":"../one.safetensors"}})", "in the same folder"},
      {R"({"weight_map":{"a":"/etc/passwd"}})", "in the same folder"},
      {R"({"weight_map":{"a":"x/one.safetensors"}})", "in the same folder"},
      {R"({"weight_map":{"a":".."}})", "in the same folder"},
      {R"({"weight_map":{"a":"."}})", "in the same folder"},
      {R"({"weight_map":{"a":""}})", "in the same folder"},
      {R"({"weight_map":{"a":"x\u0000y"}})", "in the same folder"},
      {R"({"weight_map":{"a":"three.safetensors"}})", "\"three.safetensors\" is not there"},
      {R"({"weight_map":{"a":"two.safetensors"}})",
       "tensor \"c\" of \"two.safetensors\" is not in the weight_map"},
      {R"({"weight_map":{"a":"two.safetensors","b":"one.safetensors","c":"two.safetensors","d":"two.safetensors"}})",
       "tensor \"d\" is in two files: \"one.safetensors\", and \"two.safetensors\""},
      {R"({"weight_map":{"a":"two.safetensors","b":"one.safetensors","c":"two.safetensors","d":"one.safetensors",)"
       R"("e":"one.safetensors"}})",
       "tensor \"e\" is not in \"one.safetensors\""},
      {"{\"weight_map\":{\"\xff\":\"one.safetensors\"}}", "ill-formed UTF-8"},
  };
  const ShardedModel model;
  for (const auto& each : cases) {
    model.index(each.index);
    const Failure failure = failure_of([&] { Checkpoint::open(model.index()); });
    EXPECT_EQ(failure.status, Status::bad_file) << each.index;
    EXPECT_NE(failure.message.find(model.index().string()), std::string::npos) << failure.message;
    EXPECT_NE(failure.message.find(each.says), std::string::npos)
        << each.index << "\n  gave " << failure.message;
  }
  model.index(R"({"metadata":)" + std::string(1000, '[') + std::string(1000, ']') + R"(,"weight_map":{}})");
  EXPECT_NE(failure_of([&] { Checkpoint::open(model.index()); }).message.find("nested deeper"),
            std::string::npos);
}

TEST(Sharded, AFolderWithoutAModelIsRefused) {
  const TemporaryFolder folder;
  const Failure failure = failure_of([&] { Checkpoint::open(folder.path()); });
  EXPECT_EQ(failure.status, Status::bad_file);
  EXPECT_NE(failure.message.find("holds no *.safetensors"), std::string::npos) << failure.message;
}

TEST(Sharded, AFolderOfSeveralModelsIsRefusedWithTheirNames) {
  // A model and its adapter, a twin of less precision, the same weights whole beside an index, two indices.
  const std::vector<std::vector<const char*>> cases = {
      {"model.safetensors", "adapter_model.safetensors"},
      {"model.safetensors", "model.fp16.safetensors"},
      {"consolidated.safetensors", "model.safetensors.index.json", "one.safetensors", "two.safetensors"},
      {"a.safetensors.index.json", "b.safetensors.index.json", "one.safetensors", "two.safetensors"}};
  for (const auto& names : cases) {
    const ShardedModel model;
    const TemporaryFolder folder;
    for (const std::string name : names) {
      fs::copy(name.ends_with(".json")     ? model.index()
               : name == "two.safetensors" ? model.folder / "two.safetensors"
                                           : model.folder / "one.safetensors",
               folder / name);
    }
    const Failure failure = failure_of([&] { Checkpoint::open(folder.path()); });
    EXPECT_EQ(failure.status, Status::bad_file) << names[0];
    EXPECT_NE(failure.message.find("more than one model"), std::string::npos) << failure.message;
    for (std::size_t k = 0; k < 2; ++k)
      EXPECT_NE(failure.message.find(names[k]), std::string::npos) << failure.message;
    if (names[1] == std::string("model.safetensors.index.json")) {  // its parts are not among the choices
      EXPECT_EQ(failure.message.find("one.safetensors"), std::string::npos) << failure.message;
    }
  }
}

// Malformed safetensors
// --------------------------------------------------------------------------------------------

/// A header of one tensor "w", with this dtype, shape and data_offsets.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"w":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

TEST(Safetensors, EveryMalformedFileIsRefusedWithItsReason) {
  const std::string eight(8, 'x');
  const std::string good = one(R"("F32")", "[2]", "[0,8]");
  const std::string tensor = R"({"dtype":"U8","shape":[4],"data_offsets":)";
  const struct {
    std::string bytes;
    const char* says;
  } cases[] = {
      {"", "is empty"},
      {"1234567", "has 7 bytes"},
      {std::string(8, '\0'), "does not begin with '{'"},
      {safetensors_bytes(good, eight, 1u << 20), "header length 1048576 at byte 0 is longer"},
      {safetensors_bytes(good, eight, ~0ull), "header length 18446744073709551615 at byte 0"},
      {safetensors_bytes(good, eight, ~0ull - 7), "at byte 0 is longer"},
      {safetensors_bytes(good, eight, good.size() - 1), "not valid JSON at byte"},
      {safetensors_bytes(good, eight + "x", good.size() + 1), "not valid JSON at byte"},
      {safetensors_bytes(good, eight.substr(1)), "are not within the 7 bytes of data"},
      {safetensors_bytes(good, eight + "x"), "but the file at"},
      {safetensors_bytes("{}", "x"), "but the file at 11"},
      {safetensors_bytes("[]", ""), "does not begin with '{'"},
      {safetensors_bytes(" {}", ""), "does not begin with '{'"},
      {safetensors_bytes("{", ""), "not valid JSON at byte 9"},
      {safetensors_bytes("{}{}", ""), "not valid JSON at byte 10"},
      {safetensors_bytes("{'w':1}", ""), "not valid JSON at byte 9"},
      {safetensors_bytes("{\"w\xff\":{}}", ""), "ill-formed UTF-8"},
      {safetensors_bytes("{\"\xed\xa0\x80\":{}}", ""), "ill-formed UTF-8"},
      {safetensors_bytes(R"({"w":1})", ""), "tensor \"w\": is 1, expected an object"},
      {safetensors_bytes(R"({"w":null})", ""), "tensor \"w\": is null"},
      {safetensors_bytes(R"({"w":[]})", ""), "tensor \"w\": is an array"},
      {safetensors_bytes(R"({"w":{}})", ""), "tensor \"w\": has no \"dtype\""},
      {safetensors_bytes(R"({"w":{"dtype":"F32","shape":[2]}})", eight), "has no \"data_offsets\""},
      {safetensors_bytes(R"({"w":{"dtype":"F32","data_offsets":[0,8]}})", eight), "has no \"shape\""},
      {safetensors_bytes(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", eight),
       "unknown key \"x\""},
      {safetensors_bytes(R"({"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", eight),
       "the key \"dtype\" is there twice"},
      {safetensors_bytes(R"({"w":)" + tensor + R"([0,4]},"w":)" + tensor + "[4,8]}}", eight),
       "tensor \"w\": is there twice"},
      {safetensors_bytes(R"({"__metadata__":{},"__metadata__":{}})", ""), "\"__metadata__\" is there twice"},
      {safetensors_bytes(R"({"__metadata__":{"a":"1","a":"2"}})", ""), "the key \"a\" is there twice"},
      {safetensors_bytes(R"({"__metadata__":{"a":1}})", ""), "\"a\" is 1, expected a string"},
      {safetensors_bytes(R"({"__metadata__":{"a":{}}})", ""), "\"a\" is an object, expected a string"},
      {safetensors_bytes(R"({"__metadata__":[]})", ""), "__metadata__ is an array"},
      {safetensors_bytes(one("1", "[2]", "[0,8]"), eight), "dtype is 1, expected a string"},
      {safetensors_bytes(one(R"("F33")", "[2]", "[0,8]"), eight), "unknown dtype \"F33\""},
      {safetensors_bytes(one(R"("f32")", "[2]", "[0,8]"), eight), "unknown dtype \"f32\""},
      {safetensors_bytes(one(R"("F32")", "2", "[0,8]"), eight), "shape holds 2, expected an array"},
      {safetensors_bytes(one(R"("F32")", "[[2]]", "[0,8]"), eight), "shape holds an array"},
      {safetensors_bytes(one(R"("F32")", "[-2]", "[0,8]"), eight), "shape holds -2"},
      {safetensors_bytes(one(R"("F32")", "[2.0]", "[0,8]"), eight), "shape holds the number \"2.0\""},
      {safetensors_bytes(one(R"("F32")", "[2e0]", "[0,8]"), eight), "shape holds the number \"2e0\""},
      {safetensors_bytes(one(R"("F32")", "[\"2\"]", "[0,8]"), eight), "shape holds the string \"2\""},
      {safetensors_bytes(one(R"("F32")", "[true]", "[0,8]"), eight), "shape holds a boolean"},
      {safetensors_bytes(one(R"("F32")", "[18446744073709551615]", "[0,8]"), eight),
       "expected at most 2^63 - 1"},
      {safetensors_bytes(one(R"("F32")", "[99999999999999999999999]", "[0,8]"), eight),
       "shape holds the number"},
      {safetensors_bytes(one(R"("F32")", "[1e999]", "[0,8]"), eight), "not valid JSON at byte"},
      {safetensors_bytes(one(R"("F32")", "[4294967296,4294967296]", "[0,8]"), eight),
       "more than 2^63 - 1 bytes"},
      {safetensors_bytes(one(R"("F64")", "[2305843009213693952]", "[0,8]"), eight),
       "more than 2^63 - 1 bytes"},
      {safetensors_bytes(one(R"("F32")", "[4611686018427387904,4,0]", "[0,8]"), eight),
       "more than 2^63 - 1 bytes"},
      {safetensors_bytes(one(R"("F32")", "[3]", "[0,8]"), eight), "hold 8 bytes, expected 12"},
      {safetensors_bytes(one(R"("F32")", "[]", "[0,8]"), eight), "hold 8 bytes, expected 4"},
      {safetensors_bytes(one(R"("F32")", "[0]", "[0,8]"), eight), "hold 8 bytes, expected 0"},
      {safetensors_bytes(one(R"("F32")", "[2]", "[0]"), eight), "data_offsets holds 1 numbers"},
      {safetensors_bytes(one(R"("F32")", "[2]", "[0,8,8]"), eight), "data_offsets holds more than 2"},
      {safetensors_bytes(one(R"("F32")", "[2]", "[]"), eight), "data_offsets holds 0 numbers"},
      {safetensors_bytes(one(R"("F32")", "[2]", "[-8,0]"), eight), "data_offsets holds -8"},
      {safetensors_bytes(one(R"("F32")", "[2]", "[8,0]"), eight), "data_offsets [8, 0] are not within"},
      {safetensors_bytes(one(R"("F32")", "[2]", "[8,16]"), eight),
       "data_offsets [8, 16] are not within the 8 bytes"},
      {safetensors_bytes(one(R"("F32")", "[2]", "[9223372036854775800,9223372036854775807]"), eight),
       "are not within"},
      {safetensors_bytes(one(R"("F32")", "[2]", "[0.5,8]"), eight), "data_offsets holds the number"},
      {safetensors_bytes(R"({"v":)" + tensor + R"([0,4]},"w":)" + tensor + "[2,6]}}", eight),
       "of two tensors overlap"},
      {safetensors_bytes(R"({"v":)" + tensor + R"([0,4]},"w":)" + tensor + "[0,4]}}", eight),
       "of two tensors overlap"},
      {safetensors_bytes(R"({"v":)" + tensor + R"([0,4]},"w":)" + tensor + "[6,10]}}", eight + "xx"),
       "has a hole"},
      {safetensors_bytes(R"({"w":)" + tensor + "[4,8]}}", eight), "has a hole"},
      {safetensors_bytes("{" + std::string(100000, '['), ""), "not valid JSON at byte"},
      {safetensors_bytes(R"({"w":)" + std::string(100000, '['), ""), "is an array"},
  };
  const TemporaryFolder folder;
  const fs::path path = folder / "bad.safetensors";
  for (const auto& each : cases) {
    write_text(path, each.bytes);
    const Failure failure = failure_of([&] { Checkpoint::open(path); });
    const std::string shown = each.bytes.substr(0, 120);
    EXPECT_EQ(failure.status, Status::bad_file) << shown;
    EXPECT_EQ(failure.message.find(path.string()), 0u) << failure.message;
    EXPECT_NE(failure.message.find(each.says), std::string::npos) << shown << "\n  gave " << failure.message;
    EXPECT_LT(failure.message.size(), 600u);
  }
}

TEST(Safetensors, DtypesOfTheFormatThatAreNotSupportedAreNamed) {
  const TemporaryFolder folder;
  for (const char* dtype : {"F8_E4M3FNUZ", "F8_E8M0", "C64", "F4"}) {
    write_text(folder / "m.safetensors",
               safetensors_bytes(one('"' + std::string(dtype) + '"', "[8]", "[0,8]"), "xxxxxxxx"));
    const Failure failure = failure_of([&] { Checkpoint::open(folder / "m.safetensors"); });
    EXPECT_EQ(failure.status, Status::unsupported);
    EXPECT_NE(failure.message.find(dtype), std::string::npos) << failure.message;
    EXPECT_NE(failure.message.find("tensor \"w\""), std::string::npos) << failure.message;
  }
}

TEST(Safetensors, EveryDtypeOfTheFormatMayBeEmpty) {
  const TemporaryFolder folder;
  for (const char* dtype : {"F8_E4M3", "F8_E5M2", "F8_E8M0", "C64", "F4", "F6_E2M3", "BF16"}) {
    write_safetensors(folder / "m.safetensors",
                      std::vector<TensorToWrite>{{"w", dtype, {0}, nullptr}, {"x", dtype, {3, 0}, nullptr}});
    const Checkpoint read = Checkpoint::open(folder / "m.safetensors");
    ASSERT_EQ(read.tensors().size(), 2u);
    EXPECT_EQ(read.tensors()[0].dtype, dtype);
    EXPECT_EQ(read.tensors()[1].shape, (std::vector<std::int64_t>{3, 0}));
    EXPECT_EQ(read.tensors()[1].bytes, 0);
  }
}

// Other formats
// --------------------------------------------------------------------------------------------------------

TEST(Foreign, AFileOfAnotherFormatIsNamedWithAWayOut) {
  const std::string rest(64, '\0');
  const struct {
    std::string begin;
    const char* says;
  } cases[] = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"},
      {"<!DOCTYPE html>\n<html>", "HTML page"},
      {"\n\n  <!doctype HTML><head>", "HTML page"},
      {"\xef\xbb\xbf<HTML>", "HTML page"},
      {"<?xml version=\"1.0\"?><Error><Code>AccessDenied", "is XML"},
      {"{\"error\": \"Repository not found\"}", "JSON text"},
      {"{\n  \"weight_map\": {\"w\": \"x\"}}", "JSON text"},
      {"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j", "pickle"},
      {std::string("\x80\x04\x95\x10\0\0\0\0\0\0\0}", 12), "pickle"},
      {"(dp0\nS'w'\n", "pickle"},
      {std::string("PK\x03\x04", 4) + std::string(26, '\0') + "archive/data.pkl", "PyTorch file"},
      {std::string("PK\x03\x04", 4) + std::string(26, '\0') + "notes.txt", "zip archive"},
      {std::string("GGUF\x03\0\0\0", 8), "GGUF"},
      {"\x89HDF\r\n\x1a\n", "HDF5"},
      {"\x1f\x8b\x08", "gzip"},
      {"\x28\xb5\x2f\xfd", "Zstandard"},
      {std::string("\xfd\x37zXZ\0", 6), "xz"},
      {"BZh91AY", "bzip2"},
  };
  const TemporaryFolder folder;
  const ShardedModel sharded;
  for (const auto& each : cases) {
    // Under either name, in place of an index's part, and of the index.
    for (const fs::path& path : {folder / "w.safetensors", folder / "w.npy",
                                 sharded.folder / "one.safetensors", folder / "w.safetensors.index.json"}) {
      if (path.extension() == ".json" && each.begin.starts_with('{')) continue;
      write_text(path, each.begin + rest);
      const bool part = path.parent_path() == sharded.folder.path();
      const Failure failure = failure_of([&] { Checkpoint::open(part ? sharded.index() : path); });
      EXPECT_EQ(failure.status, Status::bad_file) << each.begin;
      EXPECT_EQ(failure.message.find(path.string()), 0u) << failure.message;
      EXPECT_NE(failure.message.find(each.says), std::string::npos) << path << ": " << failure.message;
    }
  }
}

TEST(Foreign, AHeaderWhoseLengthLooksLikeAMagicIsRead) {
  // 0x0280 bytes: the length begins as a pickle does.
  std::string header = R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  header.resize(0x280, ' ');
  const TemporaryFolder folder;
  write_text(folder / "m.safetensors", safetensors_bytes(header, "x"));
  EXPECT_EQ(Checkpoint::open(folder / "m.safetensors").tensors().size(), 1u);
}

TEST(Safetensors, AShapeOfTooManyDimensionsIsRefusedBeforeItIsStored) {
  const TemporaryFolder folder;
  std::string shape = "[1";
  for (int i = 0; i < 200000; ++i) shape += ",1";
  write_text(folder / "m.safetensors", safetensors_bytes(one(R"("U8")", shape + "]", "[0,1]"), "x"));
  EXPECT_NE(failure_of([&] { Checkpoint::open(folder / "m.safetensors"); }).message.find("more than 64"),
            std::string::npos);
}

TEST(Safetensors, AHeaderAboveTheLimitIsRefusedUnread) {
  const TemporaryFolder folder;
  write_text(folder / "m.safetensors", safetensors_bytes("", "", 100'000'001));
  fs::resize_file(folder / "m.safetensors", 200'000'000);  // sparse
  const Failure failure = failure_of([&] { Checkpoint::open(folder / "m.safetensors"); });
  EXPECT_EQ(failure.status, Status::bad_file);
  EXPECT_NE(failure.message.find("above 100000000"), std::string::npos) << failure.message;
}

TEST(Safetensors, HostileNamesDoNotReachTheMessageAsTheyAre) {
  const TemporaryFolder folder;
  const std::string name = "\\u001b[31m" + std::string(5000, 'x');
  write_text(folder / "m.safetensors", safetensors_bytes("{\"" + name + "\":1}", ""));
  const Failure failure = failure_of([&] { Checkpoint::open(folder / "m.safetensors"); });
  EXPECT_EQ(failure.message.find('\x1b'), std::string::npos);
  EXPECT_LT(failure.message.size(), 400u);
}

TEST(Open, WhatIsNotThereOrNotAFileIsAnError) {
  const TemporaryFolder folder;
  const Failure absent = failure_of([&] { Checkpoint::open(folder / "none.safetensors"); });
  EXPECT_EQ(absent.status, Status::io_error);
  EXPECT_NE(absent.message.find("No such file"), std::string::npos) << absent.message;
  ASSERT_EQ(::mkfifo((folder / "pipe.safetensors").c_str(), 0600), 0);
  EXPECT_EQ(failure_of([&] { Checkpoint::open(folder / "pipe.safetensors"); }).status, Status::bad_file);
}

// Malformed npy
// ------------------------------------------------------------------------------------------------------

TEST(Npy, EveryMalformedFileIsRefusedWithItsReason) {
  const auto dict = [](const std::string& descr, const std::string& order, const std::string& shape) {
    return "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + "}";
  };
  const std::string good = dict("'<f4'", "False", "(2,)");
  const std::string data(8, 'x');
  const struct {
    std::string bytes;
    const char* says;
  } cases[] = {
      {"", "is empty"},
      {"\x93NUMP", "magic"},
      {"\x93NUMPZ\x01\x02\x03\x04\x05\x06", "magic"},
      {"\x93NUMPY", "npy version"},
      {npy_bytes(good, data, 4), "npy version 4.0"},
      {npy_bytes(good, data, 0), "npy version 0.0"},
      {std::string("\x93NUMPY\x01\x00\xff\xff{", 11), "longer than the file"},
      {std::string("\x93NUMPY\x02\x00\xff\xff\xff\xff{}", 14), "longer than the file"},
      {std::string("\x93NUMPY\x02\x00\x01", 9), "longer than the file"},
      {npy_bytes("", data), "expected '{'"},
      {npy_bytes("[]", data), "expected '{'"},
      {npy_bytes("{", data), "expected a string"},
      {npy_bytes("{}", data), "is missing"},
      {npy_bytes("{'descr': '<f4', 'shape': (2,)}", data), "is missing"},
      {npy_bytes("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", data),
       "there twice"},
      {npy_bytes("{'x': 1}", data), "the key \"x\" is unknown"},
      {npy_bytes(good + "x", data), "behind the dict"},
      {npy_bytes(good.substr(0, good.size() - 1), data), "expected '}'"},
      {npy_bytes(dict("'<f4", "False", "(2,)"), data), "npy header at byte"},
      {npy_bytes("{'descr': '<f4", data), "does not end"},
      {npy_bytes(dict("'<f\\x34'", "False", "(2,)"), data), "escapes"},
      {npy_bytes(dict("[('a', '<f4')]", "False", "(2,)"), data), "structured dtype"},
      {npy_bytes(dict("'<f4'", "0", "(2,)"), data), "expected True or False"},
      {npy_bytes(dict("'<f4'", "false", "(2,)"), data), "expected True or False"},
      {npy_bytes(dict("'<f2'", "True", "(2, 2)"), data), "fortran_order is True for shape [2, 2]"},
      {npy_bytes(dict("'|u1'", "True", "(2, 1, 4)"), data), "fortran_order is True"},
      {npy_bytes(dict("'<f4'", "False", "2"), data), "expected '('"},
      {npy_bytes(dict("'<f4'", "False", "(2)"), data), "expected a tuple"},
      {npy_bytes(dict("'<f4'", "False", "[2,]"), data), "expected '('"},
      {npy_bytes(dict("'<f4'", "False", "(-2,)"), data), "expected an integer"},
      {npy_bytes(dict("'<f4'", "False", "(2.0,)"), data), "expected ')'"},
      {npy_bytes(dict("'<f4'", "False", "(2L,)"), data), "expected ')'"},
      {npy_bytes(dict("'<f4'", "False", "(1+1,)"), data), "expected ')'"},
      {npy_bytes(dict("'<f4'", "False", "(__import__('os').system('true'),)"), data), "expected an integer"},
      {npy_bytes(dict("'<f4'", "False", "(99999999999999999999,)"), data), "above 2^63 - 1"},
      {npy_bytes(dict("'<f4'", "False", "(4294967296, 4294967296)"), data), "more than 2^63 - 1 bytes"},
      {npy_bytes(dict("'<f4'", "False", "(3,)"), data), "has 8 bytes of data from byte"},
      {npy_bytes(dict("'<f4'", "False", "(1,)"), data), "expected 4 for npy shape [1]"},
      {npy_bytes(dict("'>f4'", "False", "(2,)"), data), "big-endian"},
      {npy_bytes(dict("'|O'", "False", "(1,)"), data), "Python objects"},
      {npy_bytes(dict("'<c8'", "False", "(1,)"), data), "npy descr \"<c8\""},
      {npy_bytes(dict("'<U2'", "False", "(1,)"), data), "npy descr \"<U2\""},
      {npy_bytes(dict("'|V8'", "False", "(1,)"), data), "npy descr \"|V8\""},
      {npy_bytes(dict("'<f16'", "False", "(1,)"), data), "npy descr \"<f16\""},
  };
  const TemporaryFolder folder;
  const fs::path path = folder / "bad.npy";
  for (const auto& each : cases) {
    write_text(path, each.bytes);
    const Failure failure = failure_of([&] { Checkpoint::open(path); });
    EXPECT_EQ(failure.status, Status::bad_file) << each.bytes;
    EXPECT_EQ(failure.message.find(path.string()), 0u) << failure.message;
    EXPECT_NE(failure.message.find(each.says), std::string::npos)
        << each.bytes << "\n  gave " << failure.message;
  }
  std::string many = "(";
  for (int i = 0; i < 1000; ++i) many += "1,";
  write_text(path, npy_bytes(dict("'|u1'", "False", many + ")"), "x"));
  EXPECT_NE(failure_of([&] { Checkpoint::open(path); }).message.find("more than 64 dimensions"),
            std::string::npos);
}

// Random damage
// --------------------------------------------------------------------------------------------------------

/// Opens it; where that succeeds every byte that it points to must be there.
void open_and_read(const fs::path& path) {
  try {
    const Checkpoint read = Checkpoint::open(path);
    volatile unsigned char sink = 0;
    for (std::size_t t = 0; t < read.tensors().size(); ++t) {
      const auto* bytes = static_cast<const unsigned char*>(read.data(t));
      for (std::int64_t k = 0; k < read.tensors()[t].bytes; ++k) sink = bytes[k];
    }
    (void)sink;
  } catch (const Error& error) {
    EXPECT_TRUE(error.status() == Status::bad_file || error.status() == Status::unsupported) << error.what();
    EXPECT_EQ(std::string(error.what()).find(path.parent_path().string()), 0u) << error.what();
  }
}

std::string damaged(std::string bytes, std::size_t header, std::mt19937_64& random) {
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  const char* const splices[] = {"9",    "99999999999999999999",
                                 "-1",   "{",
                                 "}",    "[",
                                 "]",    ",",
                                 ":",    "\"",
                                 "'",    "\\u0000",
                                 "\xff", "null",
                                 "0",    "1e9",
                                 "(",    ")",
                                 "True", "\\",
                                 "..",   "/"};
  for (std::size_t changes = 1 + below(3); changes > 0 && !bytes.empty(); --changes) {
    const std::size_t at = below(4) == 0 ? below(bytes.size()) : below(std::min(header, bytes.size()));
    switch (below(5)) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        break;
      case 1:
        bytes[at] = static_cast<char>(random());
        break;
      case 2:
        bytes.resize(at);
        break;
      case 3:
        bytes.insert(at, splices[below(std::size(splices))]);
        break;
      default:
        bytes.erase(at, 1 + below(8));
        break;
    }
  }
  return bytes;
}

TEST(Damage, NoChangeToAValidFileCrashesTheReaders) {
  test::Generator random = test::generator("damage");
  const ShardedModel model;
  write_npy(model.folder / "a.npy", {"", "F32", {2, 3}, model.data.data()});
  const std::string single = read_text(model.folder / "two.safetensors");
  const std::string npy = read_text(model.folder / "a.npy");
  const std::string index = read_text(model.index());
  for (int round = 0; round < 5000; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    write_text(model.folder / "x.safetensors", damaged(single, single.size() - 10, random));
    open_and_read(model.folder / "x.safetensors");
    write_text(model.folder / "x.npy", damaged(npy, 80, random));
    open_and_read(model.folder / "x.npy");
    write_text(model.folder / "x.json", damaged(index, index.size(), random));
    open_and_read(model.folder / "x.json");
    if (HasFailure()) break;
  }
}

// Writing
// ----------------------------------------------------------------------------------------------------------------

TEST(Write, BadTensorsAreRefusedAndLeaveNothing) {
  const TemporaryFolder folder;
  const std::string data(64, 'x');
  const std::vector<std::vector<TensorToWrite>> cases = {
      {{"a", "F32", {1}, data.data()}, {"a", "F32", {1}, data.data()}},
      {{"a", "F32", {1}, data.data()}, {"a", "F64", {1}, data.data()}},
      {{"a", "F31", {1}, data.data()}},
      {{"a", "F32", {-1}, data.data()}},
      {{"a", "F32", {1LL << 62}, data.data()}},
      {{"a\xff", "F32", {1}, data.data()}},
      {{"__metadata__", "F32", {1}, data.data()}},
  };
  for (const auto& tensors : cases) {
    EXPECT_EQ(failure_of([&] { write_safetensors(folder / "m.safetensors", tensors); }).status,
              Status::invalid_argument);
  }
  const std::vector<std::pair<std::string, std::string>> twice = {{"k", "1"}, {"k", "2"}};
  EXPECT_EQ(failure_of([&] { write_safetensors(folder / "m.safetensors", {}, twice); }).status,
            Status::invalid_argument);
  EXPECT_EQ(failure_of([&] {
              write_npy(folder / "a.npy", {"", "BF16", {1}, data.data()});
            }).status,
            Status::invalid_argument);
  EXPECT_EQ(folder.entries(), 0);
}

TEST(Write, ReplacesAnExistingFileAndLeavesNoOther) {
  const TemporaryFolder folder;
  write_text(folder / "m.safetensors", "old");
  write_safetensors(folder / "m.safetensors", {});
  EXPECT_EQ(folder.entries(), 1);
  EXPECT_EQ(Checkpoint::open(folder / "m.safetensors").tensors().size(), 0u);
}

TEST(Write, FilesThatBelongTogetherAppearTogetherOrNotAtAll) {
  const TemporaryFolder folder;
  const auto write = [&] {
    detail::OutputFile first(folder / "first", 1), second(folder / "second", 1);
    first.write(0, "1", 1);
    second.write(0, "2", 1);
    const std::array<detail::OutputFile*, 2> both = {&first, &second};
    commit_together(both);
  };
  write();
  EXPECT_EQ(folder.entries(), 2);
  EXPECT_EQ(read_text(folder / "second"), "2");
  fs::remove(folder / "first");
  fs::remove(folder / "second");
  // The second cannot have its name: a folder has come to be there.
  const Failure failure = failure_of([&] {
    detail::OutputFile first(folder / "first", 1), second(folder / "second", 1);
    fs::create_directories(folder / "second");
    const std::array<detail::OutputFile*, 2> both = {&first, &second};
    commit_together(both);
  });
  EXPECT_EQ(failure.status, Status::io_error);
  EXPECT_FALSE(fs::exists(folder / "first"));
  EXPECT_EQ(folder.entries(), 1);
}

// What was there before is there again, with its own inode.
TEST(Write, FilesThatAreReplacedTogetherAreAllReplacedOrNone) {
  const TemporaryFolder folder;
  const std::array<const char*, 4> names = {"a", "new", "b", "last"};
  for (const char* const name : {"a", "b"}) write_text(folder / name, "former");
  const auto inode = detail::ReadFile(folder / "a").id().inode;
  std::vector<std::unique_ptr<detail::OutputFile>> files;
  std::vector<detail::OutputFile*> pointers;
  for (const char* const name : names) {
    files.push_back(std::make_unique<detail::OutputFile>(folder / name, 5));
    files.back()->write(0, "later", 5);
    pointers.push_back(files.back().get());
  }
  fs::create_directories(folder / "last");
  EXPECT_EQ(failure_of([&] { commit_together(pointers); }).status, Status::io_error);
  EXPECT_EQ(read_text(folder / "a"), "former");
  EXPECT_EQ(detail::ReadFile(folder / "a").id().inode, inode);
  EXPECT_EQ(read_text(folder / "b"), "former");
  EXPECT_FALSE(fs::exists(folder / "new"));
  files.clear();
  EXPECT_EQ(folder.entries(), 3);  // no temporary names
}

// Once more: nothing of the former files stays.
TEST(Write, FormerFilesGoWhenAllAreReplaced) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "other");
  const std::array<fs::path, 3> paths = {folder / "a", folder / "other" / "b", folder / "c"};
  for (const char* const text : {"former", "latest"}) {
    std::vector<std::unique_ptr<detail::OutputFile>> files;
    std::vector<detail::OutputFile*> pointers;
    for (const fs::path& path : paths) {
      files.push_back(std::make_unique<detail::OutputFile>(path, 6));
      files.back()->write(0, text, 6);
      pointers.push_back(files.back().get());
    }
    commit_together(pointers);
    for (const fs::path& path : paths) EXPECT_EQ(read_text(path), text);
  }
  EXPECT_EQ(folder.entries(), 3);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder / "other"), fs::directory_iterator{}), 1);
}

TEST(Write, AFolderForOutputsGoesAwayUnlessItIsKept) {
  const TemporaryFolder folder;
  { const detail::OutputFolder made(folder / "made"); }
  EXPECT_FALSE(fs::exists(folder / "made"));
  {
    detail::OutputFolder made(folder / "made");
    made.keep();
  }
  EXPECT_TRUE(fs::exists(folder / "made"));
  { const detail::OutputFolder there(folder / "made"); }
  EXPECT_TRUE(fs::exists(folder / "made"));
}

TEST(Read, AChangeAfterTheLastReadIsSeen) {
  const TemporaryFolder folder;
  write_text(folder / "m", "0123");
  const detail::ReadFile file(folder / "m");
  std::array<char, 4> bytes{};
  file.read(0, bytes.data(), 4);
  file.check_unchanged();
  write_text(folder / "m", "4567");
  EXPECT_EQ(failure_of([&] { file.check_unchanged(); }).status, Status::bad_file);
}

TEST(Write, ToNowhereIsAnErrorWithTheSystemsReason) {
  const TemporaryFolder folder;
  const Failure failure = failure_of([&] { write_safetensors(folder / "none" / "m.safetensors", {}); });
  EXPECT_EQ(failure.status, Status::io_error);
  EXPECT_NE(failure.message.find("No such file or directory"), std::string::npos) << failure.message;
  EXPECT_EQ(failure_of([&] { write_safetensors(folder.path(), {}); }).status, Status::invalid_argument);
}

TEST(Write, WhatTheSystemWillNotHoldIsAnErrorAndLeavesNothing) {
  const TemporaryFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string data(10000, 'x');
    const Failure failure = failure_of([&] {
      write_safetensors(folder / "m.safetensors",
                        std::vector<TensorToWrite>{{"a", "U8", {10000}, data.data()}});
    });
    std::_Exit(failure.status == Status::io_error &&
                       failure.message.find("File too large") != std::string::npos
                   ? 0
                   : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(folder.entries(), 0);
}

}  // namespace
