// Prints what a network sees in raw frames from another program, the newest first:
//     ffmpeg -loglevel error -i /dev/video0 -f rawvideo -pix_fmt bgr24 -s 640x480 - | camera street.edge 640 480
#include <edgecnn/runner.hpp>

#include <cstdio>
#include <cstdlib>
#include <exception>

int main(int count, char** words) try {
    const int width = count > 3 ? std::atoi(words[2]) : 0, height = count > 3 ? std::atoi(words[3]) : 0;
    if (width < 1 || height < 1 || width > 20000 || height > 20000) {
        std::fprintf(stderr, "usage: ffmpeg … | camera BUNDLE WIDTH HEIGHT\n");
        return 2;
    }
    edgecnn::Runner runner(words[1]);
    std::vector<std::uint8_t> frame(static_cast<std::size_t>(width) * height * 3);
    while (std::fread(frame.data(), 1, frame.size(), stdin) == frame.size()) {
        const edgecnn::Result result = runner({frame.data(), height, width});
        const edgecnn::StageTimes times = runner.stage_times();
        std::printf("%.1f ms:", (times.fit_ns + times.infer_ns + times.finish_ns) / 1e6);
        if (const auto* found = std::get_if<edgecnn::Detections>(&result)) {
            for (std::size_t i = 0; i < found->size(); ++i) {
                std::printf(" %s %.2f", runner.labels()[found->class_ids[i]].c_str(), found->scores[i]);
            }
        }
        std::printf("\n");
        std::fflush(stdout);
    }
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
