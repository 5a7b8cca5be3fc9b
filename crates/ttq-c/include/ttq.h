/* Runs networks in packed files. Generated from crates/ttq-c/src by cbindgen: do not edit.
 *
 * Functions return a status; `ttq_last_error` has the sentence that says what is wrong. No function ends the process on bad input;
 * only memory that runs out does.
 * A network can be used by one thread at a time; networks are independent of each other. */

#ifndef TTQ_H
#define TTQ_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/*
 What a function returns.
 */
typedef enum TtqStatus {
  /*
   No error.
   */
  TTQ_STATUS_OK = 0,
  /*
   A pointer is null, or not aligned for its type, or a length is larger than the memory of any machine.
   */
  TTQ_STATUS_BAD_POINTER = 1,
  /*
   The bytes are no packed file with a network, or are damaged.
   */
  TTQ_STATUS_BAD_FILE = 2,
  /*
   The network is larger than the options allow.
   */
  TTQ_STATUS_TOO_LARGE = 3,
  /*
   The network has an operation that this library does not compute.
   */
  TTQ_STATUS_UNSUPPORTED = 4,
  /*
   The input is not a whole number of items, or the output does not have as many.
   */
  TTQ_STATUS_BAD_LENGTH = 5,
  /*
   An error of this library. The network that was used must be freed.
   */
  TTQ_STATUS_INTERNAL = 6,
  /*
   The options have a number without a meaning, or ask for int8 and the file has no ranges of values.
   */
  TTQ_STATUS_BAD_OPTIONS = 7,
} TtqStatus;

/*
 Which products are computed in int8: convolutions and linear layers that read a value whose range the file has.
 */
typedef enum TtqInt8 {
  /*
   None.
   */
  TTQ_INT8_OFF = 0,
  /*
   All but the first and the last product, which matter most for the accuracy.
   */
  TTQ_INT8_INNER = 1,
  /*
   All.
   */
  TTQ_INT8_ALL = 2,
} TtqInt8;

/*
 A compiled network with its memory.
 */
typedef struct TtqNetwork TtqNetwork;

/*
 How a network is compiled. All zeros are the defaults.
 */
typedef struct TtqOptions {
  /*
   A value of `TtqInt8`.
   */
  uint32_t int8;
  /*
   Maximum number of elements of all values of an item, or 0 for 67,108,864. A file of a few bytes can describe a network of any
   size: files that are not trusted need a limit.
   */
  size_t max_elements;
} TtqOptions;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Reads a network from the `len` bytes of a packed file, compiles it, and stores a pointer to it in `network`.

 `options` can be null for the defaults. The bytes are not used after the call. `network` becomes null in the case of an error;
 otherwise it must be freed by `ttq_free`.

 # Safety
 `file` must point to `len` bytes, `options` to its type or be null, and `network` to a pointer that can be written.
 */
enum TtqStatus ttq_load(const uint8_t *file,
                        size_t len,
                        const struct TtqOptions *options,
                        struct TtqNetwork **network);

/*
 Frees a network. Null is ignored.

 # Safety
 `network` must be null or come from `ttq_load`, and must not be used afterwards.
 */
void ttq_free(struct TtqNetwork *network);

/*
 Stores the dimensions of an item of the input, at most `capacity` of them, and returns their number: 0 if a pointer is not valid, or
 if an item is a single number.

 # Safety
 `network` must be null or come from `ttq_load`, and `dims` must point to `capacity` numbers, or be null if that is 0.
 */
size_t ttq_input_shape(const struct TtqNetwork *network,
                       size_t *dims,
                       size_t capacity);

/*
 Stores the dimensions of an item of the output, at most `capacity` of them, and returns their number: 0 if a pointer is not valid, or
 if an item is a single number.

 # Safety
 `network` must be null or come from `ttq_load`, and `dims` must point to `capacity` numbers, or be null if that is 0.
 */
size_t ttq_output_shape(const struct TtqNetwork *network,
                        size_t *dims,
                        size_t capacity);

/*
 Computes the outputs of one item or several.

 `input_len` and `output_len` are numbers of floats: those of as many items. The first call allocates memory, which later calls use,
 and starts the threads of the process. A process that is forked afterwards does not have them and must not call this function.

 # Safety
 `network` must come from `ttq_load`, and no other thread may use it. `input` must point to `input_len` floats and `output` to
 `output_len` floats that can be written, and they must not overlap.
 */
enum TtqStatus ttq_run(struct TtqNetwork *network,
                       const float *input,
                       size_t input_len,
                       float *output,
                       size_t output_len);

/*
 Returns the sentence of the last error of this thread, in UTF-8, or an empty text if there was none.

 The text is valid until the next error of this thread.
 */
const char *ttq_last_error(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TTQ_H */
