// Answers one picture with an exported bundle: ONNX Runtime, nlohmann/json, libjpeg-turbo and libpng, no Python.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <onnxruntime_cxx_api.h>
#include <png.h>
#include <turbojpeg.h>

namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<unsigned char>;
using Json = nlohmann::ordered_json;  // the first of a bundle's models is the one that it prefers

constexpr std::size_t kChannels = 3;
constexpr int kUpright = 1;

// Upright RGB, row by row.
struct Picture {
  std::size_t height = 0, width = 0;
  Bytes pixels;
};

Bytes Contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path.string() + ": cannot be read");
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

bool StartsWith(const Bytes& data, std::size_t place, const char* text, std::size_t length) {
  return place + length <= data.size() && std::memcmp(data.data() + place, text, length) == 0;
}

std::uint32_t Number(const unsigned char* at, int bytes, bool little) {
  std::uint32_t value = 0;
  for (int i = 0; i < bytes; ++i) value = value << 8 | at[little ? bytes - 1 - i : i];
  return value;
}

// The orientation in EXIF data (CIPA DC-008: tag 0x0112 of the first directory of a TIFF).
int Orientation(const unsigned char* tiff, std::size_t size) {
  if (size < 8 || (std::memcmp(tiff, "II", 2) != 0 && std::memcmp(tiff, "MM", 2) != 0)) return kUpright;
  const bool little = tiff[0] == 'I';
  const std::size_t first = Number(tiff + 4, 4, little);
  if (first + 2 > size) return kUpright;
  const std::size_t entries = Number(tiff + first, 2, little);
  for (std::size_t entry = 0, at = first + 2; entry < entries && at + 12 <= size; ++entry, at += 12) {
    if (Number(tiff + at, 2, little) == 0x0112) return static_cast<int>(Number(tiff + at + 8, 2, little));
  }
  return kUpright;
}

int OrientationOfJpeg(const Bytes& data) {
  constexpr unsigned char kExif = 0xE1, kPixels = 0xDA;
  for (std::size_t at = 2; at + 4 <= data.size() && data[at] == 0xFF && data[at + 1] != kPixels;) {
    const std::size_t length = Number(&data[at + 2], 2, false);
    if (data[at + 1] == kExif && StartsWith(data, at + 4, "Exif\0\0", 6) && at + 2 + length <= data.size()) {
      return Orientation(&data[at + 10], length - 8);
    }
    at += 2 + length;
  }
  return kUpright;
}

// What EXIF calls 2 to 8: mirrored, turned, or both.
Picture Turned(const Picture& stored, int orientation) {
  const bool lies = orientation >= 5;
  const bool flips_rows = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
  const bool flips_columns = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  Picture upright{lies ? stored.width : stored.height, lies ? stored.height : stored.width, Bytes(stored.pixels.size())};
  for (std::size_t row = 0; row < upright.height; ++row) {
    for (std::size_t column = 0; column < upright.width; ++column) {
      const std::size_t y = flips_rows ? upright.height - 1 - row : row;
      const std::size_t x = flips_columns ? upright.width - 1 - column : column;
      const std::size_t from = lies ? x * stored.width + y : y * stored.width + x;
      std::copy_n(&stored.pixels[from * kChannels], kChannels, &upright.pixels[(row * upright.width + column) * kChannels]);
    }
  }
  return upright;
}

std::pair<Picture, int> OfJpeg(const Bytes& data) {
  const std::unique_ptr<void, int (*)(tjhandle)> decoder(tjInitDecompress(), tjDestroy);
  const auto size = static_cast<unsigned long>(data.size());
  int width = 0, height = 0, sampling = 0, colours = 0;
  if (tjDecompressHeader3(decoder.get(), data.data(), size, &width, &height, &sampling, &colours) != 0) {
    throw std::runtime_error(tjGetErrorStr2(decoder.get()));
  }
  Picture picture{static_cast<std::size_t>(height), static_cast<std::size_t>(width), {}};
  picture.pixels.resize(picture.height * picture.width * kChannels);
  if (tjDecompress2(decoder.get(), data.data(), size, picture.pixels.data(), width, 0, height, TJPF_RGB, 0) != 0) {
    throw std::runtime_error(tjGetErrorStr2(decoder.get()));
  }
  return {std::move(picture), OrientationOfJpeg(data)};
}

struct Reader {
  const Bytes& data;
  std::size_t place = 0;
};

void ReadPng(png_structp png, png_bytep target, png_size_t size) {
  auto& reader = *static_cast<Reader*>(png_get_io_ptr(png));
  if (size > reader.data.size() - reader.place) png_error(png, "the file is cut short");
  std::copy_n(reader.data.data() + reader.place, size, target);
  reader.place += size;
}

[[noreturn]] void Throw(png_structp, png_const_charp message) { throw std::runtime_error(message); }

std::pair<Picture, int> OfPng(const Bytes& data) {
  struct Decoder {
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, Throw, nullptr);
    png_infop info = png_create_info_struct(png);
    ~Decoder() { png_destroy_read_struct(&png, &info, nullptr); }
  } decoder;
  Reader reader{data};
  png_set_read_fn(decoder.png, &reader, ReadPng);
  // As in training: of 16 bits the upper eight, and colours as if none were transparent.
  constexpr int kAsTrained =
      PNG_TRANSFORM_STRIP_16 | PNG_TRANSFORM_EXPAND | PNG_TRANSFORM_STRIP_ALPHA | PNG_TRANSFORM_GRAY_TO_RGB;
  png_read_png(decoder.png, decoder.info, kAsTrained, nullptr);
  Picture picture{png_get_image_height(decoder.png, decoder.info), png_get_image_width(decoder.png, decoder.info), {}};
  png_bytepp rows = png_get_rows(decoder.png, decoder.info);
  for (std::size_t row = 0; row < picture.height; ++row) {
    picture.pixels.insert(picture.pixels.end(), rows[row], rows[row] + picture.width * kChannels);
  }
  png_uint_32 size = 0;
  png_bytep exif = nullptr;
  const bool has_exif = png_get_eXIf_1(decoder.png, decoder.info, &size, &exif) != 0;
  return {std::move(picture), has_exif ? Orientation(exif, size) : kUpright};
}

Picture Decoded(const fs::path& path) try {
  const Bytes data = Contents(path);
  const bool is_jpeg = StartsWith(data, 0, "\xFF\xD8\xFF", 3), is_png = StartsWith(data, 0, "\x89PNG\r\n\x1A\n", 8);
  if (!is_jpeg && !is_png) throw std::runtime_error("neither JPEG nor PNG");
  auto [picture, orientation] = is_jpeg ? OfJpeg(data) : OfPng(data);
  return orientation > kUpright && orientation <= 8 ? Turned(picture, orientation) : std::move(picture);
} catch (const std::exception& error) {
  throw std::runtime_error(path.string() + ": " + error.what());
}

class Bundle {
 public:
  explicit Bundle(const fs::path& folder) : about_(Read(folder / "bundle.json")), classes_(about_.at("classes")) {
    if (!about_.at("input").at("frames").is_null()) {
      throw std::runtime_error(folder.string() + ": a model of video clips, expected one of images");
    }
    environment_.DisableTelemetryEvents();  // ONNX Runtime may be built to report its use to its authors
    Ort::SessionOptions options;
    // On a GPU. Throws where CUDA does not load:
    // OrtCUDAProviderOptions cuda{};
    // options.AppendExecutionProvider_CUDA(cuda);
    const fs::path model = folder / about_.at("models").front().get<std::string>();
    session_ = Ort::Session(environment_, model.c_str(), options);
  }

  // One probability a class, or one number an output. The graph resizes, crops and normalises.
  std::vector<float> Answer(Picture& picture) {
    const std::array<std::int64_t, 4> shape{1, static_cast<std::int64_t>(picture.height),
                                            static_cast<std::int64_t>(picture.width), kChannels};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto frames = Ort::Value::CreateTensor<std::uint8_t>(memory, picture.pixels.data(), picture.pixels.size(),
                                                               shape.data(), shape.size());
    const char* inputs[] = {"frames"};
    const char* outputs[] = {HasNumbers() ? "values" : "probabilities"};
    const auto found = session_.Run(Ort::RunOptions{nullptr}, inputs, &frames, 1, outputs, 1);
    const float* first = found[0].GetTensorData<float>();
    return {first, first + classes_.size()};
  }

  // The numbers; the classes that reach their thresholds; or else the likeliest classes.
  void Print(const std::vector<float>& answer, std::size_t most) const {
    std::vector<std::size_t> order(answer.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const Json& thresholds = about_.at("thresholds");
    if (!thresholds.is_null()) {
      const auto is_absent = [&](std::size_t at) { return answer[at] < thresholds[at].get<double>(); };
      order.erase(std::remove_if(order.begin(), order.end(), is_absent), order.end());
    } else if (!HasNumbers()) {
      std::stable_sort(order.begin(), order.end(), [&](auto one, auto other) { return answer[one] > answer[other]; });
      order.resize(std::min(most, order.size()));
    }
    for (const std::size_t at : order) std::printf("%.6f  %s\n", static_cast<double>(answer[at]), classes_[at].c_str());
  }

 private:
  static Json Read(const fs::path& path) try {
    return Json::parse(Contents(path));
  } catch (const Json::exception& error) {
    throw std::runtime_error(path.string() + ": " + error.what());
  }

  bool HasNumbers() const { return about_.at("form") == "number"; }

  Json about_;
  std::vector<std::string> classes_;
  Ort::Env environment_{ORT_LOGGING_LEVEL_WARNING, "classify"};
  Ort::Session session_{nullptr};
};

}  // namespace

int main(int count, char** words) try {
  if (count != 3 && count != 4) {
    std::fputs("usage: classify BUNDLE IMAGE [CLASSES]\n", stderr);
    return 2;
  }
  Bundle bundle(words[1]);
  Picture picture = Decoded(words[2]);
  bundle.Print(bundle.Answer(picture), count == 4 ? std::strtoul(words[3], nullptr, 10) : 5);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
