// A robot that turns to the largest person: the loop runs 50 times a second, whatever the network needs, and acts on the
// newest result only while it is fresh. Frames come from another program: ffmpeg … | robot_loop BUNDLE 640 480
#include <edgecnn/runner.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <mutex>

using Clock = std::chrono::steady_clock;

int main(int count, char** words) try {
    const int width = count > 3 ? std::atoi(words[2]) : 0, height = count > 3 ? std::atoi(words[3]) : 0;
    if (width < 1 || height < 1 || width > 20000 || height > 20000) return std::fprintf(stderr, "see robot_loop.cpp\n"), 2;
    edgecnn::Runner runner(words[1]);
    std::mutex mutex;
    float turn = 0;              // -1 to the left, 1 to the right
    Clock::time_point captured;  // of the frame that says so
    auto seeing = std::async(std::launch::async, [&] {
        std::vector<std::uint8_t> frame(static_cast<std::size_t>(width) * height * 3);
        while (std::fread(frame.data(), 1, frame.size(), stdin) == frame.size()) {
            const Clock::time_point now = Clock::now();
            const auto found = std::get<edgecnn::Detections>(runner({frame.data(), height, width}));
            float largest = 0, towards = 0;
            for (std::size_t i = 0; i < found.size(); ++i) {
                const float* box = &found.boxes_xyxy_px[4 * i];
                if (runner.labels()[found.class_ids[i]] != "person" || box[3] - box[1] <= largest) continue;
                largest = box[3] - box[1];
                towards = (box[0] + box[2]) / static_cast<float>(width) - 1;
            }
            const std::lock_guard<std::mutex> lock(mutex);
            turn = towards, captured = now;
        }
    });
    for (auto next = Clock::now(); seeing.wait_until(next) == std::future_status::timeout; next += std::chrono::milliseconds(20)) {
        const std::lock_guard<std::mutex> lock(mutex);
        const bool fresh = Clock::now() - captured < std::chrono::milliseconds(200);
        std::printf("turn %+.2f%s\n", fresh ? turn : 0, fresh ? "" : " (nothing fresh is known)");
    }
    seeing.get();  // throws where no more is seen: no detector, or the device failed
} catch (const std::exception& error) {
    return std::fprintf(stderr, "%s\n", error.what()), 1;
}
