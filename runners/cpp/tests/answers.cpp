// Opens bundles, whatever they hold, and answers pictures, through the C functions. Built with -DEDGECNN_SANITIZE=ON, where a
// read beyond a buffer or an overflow ends it.
//     answers PICTURES ANSWERS BUNDLE…
// PICTURES has of each picture its height, width and bytes from row to row, int32, and its rows. ANSWERS gets what is said of
// each picture by each bundle: its status, int32, and where that is 0, the values of its result. A line for each bundle says
// whether it was opened.
#include <edgecnn/edgecnn.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace {

struct Picture {
    std::int32_t height_px, width_px, stride_bytes;
    std::vector<std::uint8_t> bgr;  // of exactly this size: a read beyond it is seen
};

std::vector<Picture> pictures_of(const char* path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<Picture> pictures;
    std::int32_t head[3];
    while (file.read(reinterpret_cast<char*>(head), sizeof head)) {
        const std::size_t bytes = static_cast<std::size_t>(head[2]) * (head[0] - 1) + static_cast<std::size_t>(head[1]) * 3;
        pictures.push_back({head[0], head[1], head[2], std::vector<std::uint8_t>(bytes)});
        file.read(reinterpret_cast<char*>(pictures.back().bgr.data()), static_cast<std::streamsize>(bytes));
    }
    return pictures;
}

template <typename T>
void write(std::ofstream& file, const T* values, std::size_t count) {
    if (values != nullptr) {
        file.write(reinterpret_cast<const char*>(values), static_cast<std::streamsize>(count * sizeof(T)));
    }
}

void answer(edgecnn_runner* runner, const Picture& picture, std::ofstream& answers) {
    edgecnn_result* result = nullptr;
    const std::int32_t status = edgecnn_run(runner, picture.bgr.data(), picture.height_px, picture.width_px,
                                            static_cast<std::size_t>(picture.stride_bytes), &result);
    write(answers, &status, 1);
    if (status == EDGECNN_OK) {
        const std::size_t count = edgecnn_result_count(result);
        write(answers, edgecnn_result_boxes(result), 4 * count);
        write(answers, edgecnn_result_scores(result), count);
        write(answers, edgecnn_result_class_ids(result), count);
        std::int32_t height_px = 0, width_px = 0;
        const std::uint8_t* map = edgecnn_result_class_map(result, &height_px, &width_px);
        write(answers, map, static_cast<std::size_t>(height_px) * static_cast<std::size_t>(width_px));
    }
    edgecnn_result_free(result);
}

}  // namespace

int main(int count, char** words) {
    if (count < 4) {
        std::fprintf(stderr, "usage: answers PICTURES ANSWERS BUNDLE…\n");
        return 2;
    }
    const std::vector<Picture> pictures = pictures_of(words[1]);
    std::ofstream answers(words[2], std::ios::binary);
    edgecnn_options options = edgecnn_options_default();
    options.threads = 1;
    for (int i = 3; i < count; ++i) {
        edgecnn_runner* runner = nullptr;
        const edgecnn_status status = edgecnn_open(words[i], &options, &runner);
        std::printf("%d %s\n", status, status == EDGECNN_OK ? edgecnn_label(runner, 0) : edgecnn_error());
        std::fflush(stdout);
        for (const Picture& picture : pictures) {
            if (runner != nullptr) {
                answer(runner, picture, answers);
            }
        }
        edgecnn_close(runner);
    }
    return answers.good() && !pictures.empty() ? 0 : 1;
}
