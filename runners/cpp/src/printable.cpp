#include "printable.hpp"

#include <cstdio>

namespace edgecnn {

std::string shortened(const std::string& text) {
    std::string line;
    for (const char32_t letter : letters(text)) {
        if (line.size() > 200) {
            return line + "...";
        }
        if (letter < 0x80 && !is_command(letter)) {
            line += static_cast<char>(letter);
        } else {
            char code[12];
            std::snprintf(code, sizeof code, letter < 0x100 ? "\\x%02x" : "\\u%04x", static_cast<unsigned>(letter));
            line += code;
        }
    }
    return line;
}

std::vector<char32_t> letters(const std::string& text) {
    std::vector<char32_t> found;
    found.reserve(text.size());
    for (const char each : text) {
        const auto byte = static_cast<unsigned char>(each);
        if (byte < 0x80 || byte >= 0xC0) {
            const int lead = byte < 0x80 ? 0x7F : byte < 0xE0 ? 0x1F : byte < 0xF0 ? 0x0F : 0x07;
            found.push_back(byte & lead);
        } else if (!found.empty()) {
            found.back() = (found.back() << 6 | (byte & 0x3Fu)) & 0x1FFFFF;
        }
    }
    return found;
}

bool is_command(char32_t letter) {
    return letter < 0x20 || (letter >= 0x7F && letter <= 0x9F) || letter == 0x61C || letter == 0x200E ||
           letter == 0x200F || (letter >= 0x2028 && letter <= 0x202E) || (letter >= 0x2066 && letter <= 0x2069) ||
           letter == 0xFEFF || (letter >= 0xD800 && letter <= 0xDFFF);
}

}  // namespace edgecnn
