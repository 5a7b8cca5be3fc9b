/* Classifies digits: `classify NETWORK DIGITS`, where DIGITS has images of 28 x 28 bytes.
 *
 *   cargo build --release -p ttq-c
 *   cc -Icrates/ttq-c/include crates/ttq-c/examples/classify.c target/release/libttq_c.a -lpthread -ldl -lm -o classify
 *   ./classify models/mnist/network.safetensors examples/mcu/digits.bin
 */
#include <stdio.h>
#include <stdlib.h>

#include "ttq.h"

/* The mean and the standard deviation of the pixels, from the configuration in the file. */
static const float MEAN = 0.13066047f, STD = 0.3081078f;

static unsigned char *read_file(const char *path, size_t *len) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    *len = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(*len + 1);
    if (bytes == NULL || fread(bytes, 1, *len, file) != *len) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    fclose(file);
    return bytes;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s NETWORK DIGITS\n", argv[0]);
        return 1;
    }
    size_t len, digits_len;
    unsigned char *file = read_file(argv[1], &len);
    unsigned char *digits = read_file(argv[2], &digits_len);

    struct TtqNetwork *network;
    if (ttq_load(file, len, NULL, &network) != TTQ_STATUS_OK) {
        fprintf(stderr, "%s: %s\n", argv[1], ttq_last_error());
        return 1;
    }
    size_t shape[3], classes;
    if (ttq_input_shape(network, shape, 3) != 3 || ttq_output_shape(network, &classes, 1) != 1) {
        fprintf(stderr, "%s does not classify images\n", argv[1]);
        return 1;
    }
    size_t pixels = shape[0] * shape[1] * shape[2], count = digits_len / pixels;
    float *input = malloc(count * pixels * sizeof(float)), *output = malloc(count * classes * sizeof(float));
    for (size_t i = 0; i < count * pixels; i++) {
        input[i] = ((float)digits[i] / 255.0f - MEAN) / STD;
    }
    if (ttq_run(network, input, count * pixels, output, count * classes) != TTQ_STATUS_OK) {
        fprintf(stderr, "%s\n", ttq_last_error());
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        size_t best = 0;
        for (size_t class = 1; class < classes; class++) {
            if (output[i * classes + class] > output[i * classes + best]) best = class;
        }
        printf("%zu\n", best);
    }
    ttq_free(network);
    free(input);
    free(output);
    free(file);
    free(digits);
    return 0;
}
