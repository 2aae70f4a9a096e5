/* Prints what a detector finds in a picture: detect BUNDLE PICTURE.ppm [FORMAT] */
#include <edgecnn/edgecnn.h>
#include <stdio.h>
#include <stdlib.h>

int main(int count, char **words) {
    edgecnn_options options = edgecnn_options_default();
    if (count > 3) options.format = words[3];
    int width = 0, height = 0;
    FILE *file = count > 2 ? fopen(words[2], "rb") : NULL;
    if (!file || fscanf(file, "P6 %d %d 255", &width, &height) != 2 || fgetc(file) == EOF || width < 1 || height < 1 ||
        width > 20000 || height > 20000) {
        fprintf(stderr, "usage: detect BUNDLE PICTURE.ppm [FORMAT]\n");
        return 2;
    }
    size_t size = (size_t)width * (size_t)height * 3;
    uint8_t *bgr = malloc(size);
    if (!bgr || fread(bgr, 1, size, file) != size) return fprintf(stderr, "%s is not whole\n", words[2]), 2;
    fclose(file);
    for (size_t i = 0; i < size; i += 3) { /* PPM is RGB */
        uint8_t red = bgr[i];
        bgr[i] = bgr[i + 2], bgr[i + 2] = red;
    }
    edgecnn_runner *runner;
    edgecnn_result *result = NULL;
    if (edgecnn_open(words[1], &options, &runner) || edgecnn_run(runner, bgr, height, width, 0, &result)) {
        fprintf(stderr, "%s\n", edgecnn_error());
        return edgecnn_close(runner), free(bgr), 1;
    }
    const float *box = edgecnn_result_boxes(result), *scores = edgecnn_result_scores(result);
    for (size_t i = 0; i < edgecnn_result_count(result); ++i) {
        printf("%-14s %.4f", edgecnn_label(runner, (size_t)edgecnn_result_class_ids(result)[i]), scores[i]);
        if (box) printf("  %7.2f %7.2f %7.2f %7.2f", box[4 * i], box[4 * i + 1], box[4 * i + 2], box[4 * i + 3]);
        printf("\n");
    }
    return edgecnn_result_free(result), edgecnn_close(runner), free(bgr), 0;
}
