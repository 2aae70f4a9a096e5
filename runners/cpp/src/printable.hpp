// Text of strangers in messages, as edgecnn/printable.py.
#pragma once

#include <string>
#include <vector>

namespace edgecnn {

// Text with every letter that a terminal would obey written as in "\x1b", in at most 200 letters.
std::string shortened(const std::string& text);
// The letters of UTF-8 text, of which every one is whole.
std::vector<char32_t> letters(const std::string& text);
// Whether a terminal would obey it: a control character, or one that changes the direction of writing.
bool is_command(char32_t letter);

}  // namespace edgecnn
