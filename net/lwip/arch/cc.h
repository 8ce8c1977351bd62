/* What lwIP asks of the platform; answered by net/lwip_port.cc. */
#ifndef KELDA_LWIP_ARCH_CC_H
#define KELDA_LWIP_ARCH_CC_H

#include <stddef.h>
#include <stdint.h>

#define LWIP_TIMEVAL_PRIVATE 0
#include <sys/time.h>

#ifdef __cplusplus
extern "C" {
#endif

void kelda_lwip_assert(const char* message, const char* file, int line) __attribute__((noreturn));
uint32_t kelda_lwip_random(void);
uint16_t kelda_lwip_checksum(const void* data, int size_bytes);
void* kelda_lwip_malloc(size_t size_bytes);
void* kelda_lwip_calloc(size_t count, size_t size_bytes);
void kelda_lwip_free(void* memory);

#ifdef __cplusplus
}
#endif

#define LWIP_PLATFORM_DIAG(x) \
  do {                        \
  } while (0)
#define LWIP_PLATFORM_ASSERT(x) kelda_lwip_assert(x, __FILE__, __LINE__)
#define LWIP_RAND() kelda_lwip_random()

#endif
