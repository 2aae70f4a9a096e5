// Source: Pillow, src/libImaging/Resample.c (precompute_coeffs, triangle and bicubic filters).
#include "resampling.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace edgecnn {
namespace {

double triangle(double x) {
    return std::max(1 - std::abs(x), 0.0);
}

double cubic(double x) {
    constexpr double a = -0.5;
    x = std::abs(x);
    if (x < 1) {
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    }
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

std::vector<Line> lines_of(int length, int resized, int first, int count, bool is_cubic, int shift) {
    const double shrink = static_cast<double>(length) / resized;
    const double stretch = std::max(shrink, 1.0);
    const double support = (is_cubic ? 2.0 : 1.0) * stretch;
    std::vector<Line> lines(static_cast<std::size_t>(count));
    std::vector<double> sums;
    for (int i = 0; i < count; ++i) {
        const double centre = (first + i + 0.5) * shrink;
        const int start = std::max(static_cast<int>(centre - support + 0.5), 0);
        const int stop = std::min(static_cast<int>(centre + support + 0.5), length);
        sums.clear();
        double sum = 0;
        for (int input = start; input < stop; ++input) {
            const double x = (input - centre + 0.5) / stretch;
            sum += is_cubic ? cubic(x) : triangle(x);
            sums.push_back(sum);
        }
        Line& line = lines[static_cast<std::size_t>(i)];
        line.start = start;
        std::int32_t before = 0;
        for (const double until : sums) {  // sums are rounded, not weights: they add up to 1 exactly
            const auto rounded = static_cast<std::int32_t>(std::nearbyint(until / sum * (1 << shift)));
            line.weights.push_back(static_cast<float>(rounded - before));
            before = rounded;
        }
    }
    return lines;
}

// Blue, green and red side by side, and one that nobody reads: a vector of GCC and Clang.
typedef float Pixel __attribute__((vector_size(16)));
typedef std::int32_t Levels __attribute__((vector_size(16)));

Levels levels(const Pixel& sum, int shift) {
    const Levels level = (__builtin_convertvector(sum, Levels) + (1 << (shift - 1))) >> shift;
    const Levels positive = level & ~(level < 0);
    return positive > 255 ? positive * 0 + 255 : positive;
}

int reach(const Line& line) {
    return line.start + static_cast<int>(line.weights.size());
}

}  // namespace

Resampler::Resampler(cv::Size source, cv::Size size, cv::Rect cut, bool cubic)
    : shift_(cubic ? 15 : 16) {  // cubic weights go beyond 0..1; every sum is exact in Python's float32, too
    across_ = lines_of(source.width, size.width, cut.x, cut.width, cubic, shift_);
    down_ = lines_of(source.height, size.height, cut.y, cut.height, cubic, shift_);
    top_ = std::min_element(down_.begin(), down_.end(), [](auto& a, auto& b) { return a.start < b.start; })->start;
    const auto bottom = std::max_element(down_.begin(), down_.end(), [](auto& a, auto& b) { return reach(a) < reach(b); });
    narrow_.create(reach(*bottom) - top_, cut.width, CV_8UC3);
    row_.resize(static_cast<std::size_t>(source.width) * 3 + 1);  // the last pixel, too, is read as four values
    sums_.resize(static_cast<std::size_t>(cut.width) * 3);
}

void Resampler::operator()(const cv::Mat& image, cv::Mat out) {
    // Local, because the compiler must take a byte that is written for a part of anything else.
    const int shift = shift_, half = 1 << (shift - 1);
    float* sums = sums_.data();
    for (int y = 0; y < narrow_.rows; ++y) {
        const std::uint8_t* row = image.ptr<std::uint8_t>(top_ + y);
        std::copy(row, row + row_.size() - 1, row_.begin());
        std::uint8_t* narrow = narrow_.ptr<std::uint8_t>(y);
        for (const Line& line : across_) {
            const float* from = row_.data() + 3 * static_cast<std::ptrdiff_t>(line.start);
            Pixel sum = {}, value;
            for (const float weight : line.weights) {
                std::memcpy(&value, from, sizeof value);
                sum += weight * value;
                from += 3;
            }
            const Levels found = levels(sum, shift);
            for (int channel = 0; channel < 3; ++channel) {
                *narrow++ = static_cast<std::uint8_t>(found[channel]);
            }
        }
    }
    const std::size_t values = sums_.size();
    for (int y = 0; y < out.rows; ++y) {
        const Line& line = down_[static_cast<std::size_t>(y)];
        std::fill(sums, sums + values, 0.0f);
        for (std::size_t k = 0; k < line.weights.size(); ++k) {
            const std::uint8_t* row = narrow_.ptr<std::uint8_t>(line.start - top_ + static_cast<int>(k));
            const float weight = line.weights[k];
            for (std::size_t x = 0; x < values; ++x) {
                sums[x] += weight * row[x];
            }
        }
        std::uint8_t* to = out.ptr<std::uint8_t>(y);
        for (std::size_t x = 0; x < values; ++x) {
            const std::int32_t level = (static_cast<std::int32_t>(sums[x]) + half) >> shift;
            to[x] = static_cast<std::uint8_t>(level < 0 ? 0 : level > 255 ? 255 : level);
        }
    }
}

}  // namespace edgecnn
