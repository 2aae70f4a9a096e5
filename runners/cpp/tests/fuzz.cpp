// Mutates manifests and artifacts for some seconds: each is read, or refused with BundleError, and nothing else happens.
//     fuzz SECONDS SEED SCRATCH MANIFEST.json FILE.onnx FILE.tflite …
// Built with -DEDGECNN_SANITIZE=ON, where a read beyond a buffer or an overflow ends it.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "companions.hpp"
#include "edgecnn/errors.hpp"
#include "manifest.hpp"

namespace {

std::mt19937_64 random_bits;

std::size_t below(std::size_t limit) {
    return limit == 0 ? 0 : random_bits() % limit;
}

std::string content_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Words that stand where numbers, texts and lists stood.
const std::vector<std::string> kWords = {
    "-1", "0", "1e308", "-1e309", "NaN", "Infinity", "0.5", "2147483648", "-9223372036854775809", "18446744073709551615",
    "null", "true", "{}", "[]", "\"\"", "\"../x\"", "\"\\u0000\"", "\"\\ud800\"", "\"\x1b[2J\"", "\"letterbox\"",
    "[[[[[[[[", "\"centre-crop\"", "\"segment\"", "\"classify\"", "{\"a\":1,\"a\":2}", "99999999999999999999"};

std::string mutated(std::string text, const std::string& other) {
    for (std::size_t times = 1 + below(4); times > 0 && !text.empty(); --times) {
        const std::size_t at = below(text.size());
        switch (below(6)) {
            case 0:
                text[at] = static_cast<char>(below(256));
                break;
            case 1:
                text.erase(at, 1 + below(30));
                break;
            case 2:
                text.insert(at, text.substr(below(text.size()), below(60)));
                break;
            case 3:
                text.resize(at);
                break;
            case 4:
                text.insert(at, other.substr(below(other.size()), below(60)));
                break;
            default: {  // a value of JSON becomes another
                const std::size_t colon = text.find(':', at), end = text.find_first_of(",}]", colon);
                if (colon != std::string::npos && end != std::string::npos) {
                    text.replace(colon + 1, end - colon - 1, kWords[below(kWords.size())]);
                }
            }
        }
    }
    return text;
}

// Whether it was read.
bool is_read(const std::string& name, const std::string& text, const std::string& scratch) {
    const std::string suffix = name.substr(name.rfind('.'));
    try {
        if (suffix == ".json") {
            edgecnn::read_manifest(text, "manifest.json");
        } else {
            const std::string path = scratch + suffix;
            std::ofstream(path, std::ios::binary) << text;
            edgecnn::companions_of(path);
        }
        return true;
    } catch (const edgecnn::BundleError&) {
        return false;
    }
}

}  // namespace

int main(int count, char** words) {
    if (count < 5) {
        std::fprintf(stderr, "usage: fuzz SECONDS SEED SCRATCH FILE…\n");
        return 2;
    }
    random_bits.seed(std::strtoull(words[2], nullptr, 10));
    std::vector<std::string> names(words + 4, words + count), texts;
    for (const std::string& name : names) {
        texts.push_back(content_of(name));
        if (!is_read(name, texts.back(), words[3])) {
            std::fprintf(stderr, "%s is refused as it is\n", name.c_str());
            return 1;
        }
    }
    long tried = 0, read = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::atof(words[1]));
    for (; std::chrono::steady_clock::now() < end; ++tried) {
        const std::size_t chosen = below(texts.size());
        read += is_read(names[chosen], mutated(texts[chosen], texts[below(texts.size())]), words[3]);
    }
    std::printf("%ld tried, %ld read, %ld refused\n", tried, read, tried - read);
    return tried > read && read > 0 ? 0 : 1;
}
