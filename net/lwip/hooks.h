/* Functions that lwIP calls out to; see lwipopts.h. */
#ifndef KELDA_LWIP_HOOKS_H
#define KELDA_LWIP_HOOKS_H

#include "lwip/ip_addr.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Initial sequence number of a connection (RFC 6528). */
u32_t kelda_lwip_isn(const ip_addr_t* local_ip, u16_t local_port, const ip_addr_t* remote_ip, u16_t remote_port);

#ifdef __cplusplus
}
#endif
#endif
