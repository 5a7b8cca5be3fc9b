/* Loads and runs damaged files: `hostile FILES`, where FILES has, for each file, its length (8 bytes, little-endian) and its bytes.
 * Prints the numbers of files by status. A file is refused with a sentence, or its network runs. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ttq.h"

#define REQUIRE(condition)                                                       \
    if (!(condition)) {                                                          \
        fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, ttq_last_error()); \
        exit(1);                                                                 \
    }

static size_t elements(size_t rank, const size_t *dims) {
    size_t count = 1;
    for (size_t i = 0; i < rank; i++) count *= dims[i];
    return count;
}

static enum TtqStatus try_file(const unsigned char *bytes, size_t len, enum TtqInt8 int8) {
    /* The limit of the test: a damaged file can describe a network of any size. */
    struct TtqOptions options = {.int8 = int8, .max_elements = 1 << 14};
    struct TtqNetwork *network = (struct TtqNetwork *)&options;
    enum TtqStatus status = ttq_load(bytes, len, &options, &network);
    if (status != TTQ_STATUS_OK) {
        REQUIRE(network == NULL && strlen(ttq_last_error()) > 0);
        return status;
    }
    size_t in[8], out[8], in_rank = ttq_input_shape(network, in, 8), out_rank = ttq_output_shape(network, out, 8);
    if (in_rank <= 8 && out_rank <= 8) {
        size_t in_len = elements(in_rank, in), out_len = elements(out_rank, out);
        float *input = calloc(in_len, sizeof(float)), *output = malloc(out_len * sizeof(float));
        REQUIRE(ttq_run(network, input, in_len, output, out_len) == TTQ_STATUS_OK);
        REQUIRE(ttq_run(network, input, in_len, output, out_len + 1) == TTQ_STATUS_BAD_LENGTH);
        REQUIRE(ttq_run(network, NULL, in_len, output, out_len) == TTQ_STATUS_BAD_POINTER);
        REQUIRE(strcmp(ttq_last_error(), "the input is null") == 0);
        free(input);
        free(output);
    }
    ttq_free(network);
    return TTQ_STATUS_OK;
}

/* Null and unaligned pointers. */
static void try_pointers(const unsigned char *bytes, size_t len) {
    struct TtqNetwork *network;
    float number = 0;
    REQUIRE(strcmp(ttq_last_error(), "") == 0);
    REQUIRE(ttq_load(NULL, len, NULL, &network) == TTQ_STATUS_BAD_POINTER && network == NULL);
    REQUIRE(ttq_load(bytes, len, NULL, NULL) == TTQ_STATUS_BAD_POINTER);
    REQUIRE(ttq_load(bytes, SIZE_MAX, NULL, &network) == TTQ_STATUS_BAD_POINTER);
    REQUIRE(ttq_load(bytes, 0, NULL, &network) == TTQ_STATUS_BAD_FILE);
    REQUIRE(ttq_run(NULL, &number, 1, &number, 1) == TTQ_STATUS_BAD_POINTER);
    struct TtqOptions unknown = {.int8 = 3};
    REQUIRE(ttq_load(bytes, len, &unknown, &network) == TTQ_STATUS_BAD_OPTIONS && network == NULL);
    REQUIRE(ttq_input_shape(NULL, NULL, 0) == 0 && ttq_output_shape(NULL, NULL, 0) == 0);
    ttq_free(NULL);
    REQUIRE(ttq_load(bytes, len, NULL, &network) == TTQ_STATUS_OK);
    REQUIRE(ttq_input_shape(network, NULL, 0) > 0 && ttq_input_shape(network, NULL, 1) == 0);
    REQUIRE(ttq_run(network, (const float *)((const char *)&number + 1), 0, &number, 0) == TTQ_STATUS_BAD_POINTER);
    ttq_free(network);
}

int main(int argc, char **argv) {
    FILE *files = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (files == NULL) {
        fprintf(stderr, "usage: %s FILES\n", argv[0]);
        return 1;
    }
    size_t counts[8] = {0};
    unsigned char prefix[8];
    for (size_t number = 0; fread(prefix, 1, 8, files) == 8; number++) {
        uint64_t len = 0;
        for (int i = 0; i < 8; i++) len |= (uint64_t)prefix[i] << (8 * i);
        /* Memory of exactly this size, so that a read after its end is found. */
        unsigned char *bytes = malloc(len);
        REQUIRE(len == 0 || (bytes != NULL && fread(bytes, 1, len, files) == len));
        /* The first file is not damaged. */
        if (number == 0) try_pointers(bytes, len);
        if (len > 0) counts[try_file(bytes, len, number % 2 == 1 ? TTQ_INT8_INNER : TTQ_INT8_OFF)]++;
        free(bytes);
    }
    fclose(files);
    for (int i = 0; i < 8; i++) printf("%zu ", counts[i]);
    printf("\n");
    return counts[TTQ_STATUS_INTERNAL] == 0 ? 0 : 1;
}
