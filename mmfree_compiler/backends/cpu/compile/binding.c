/* The note of a library: room for the hash that binds it to a manifest (artifact/binding.py).
 *
 * The hash is written when the library is put in an artifact, so that one library from the cache
 * serves models that differ in their weights only.
 */
#include <stdint.h>

__attribute__((section(".note.mmfree"), used, aligned(4))) static const struct {
    uint32_t name_size, hash_size, type;
    char name[8];
    uint8_t hash[32];
} note = {sizeof "mmfree", 32, 1, "mmfree", {0}};
