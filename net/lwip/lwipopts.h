/* How lwIP is built for the bare network: one stack on core 0, raw interface only, no threads, memory from the heap
 * under one bound (net/lwip_port.cc). Everything not set here keeps lwIP's default. */
#ifndef KELDA_LWIPOPTS_H
#define KELDA_LWIPOPTS_H

#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_NETCONN 0
#define LWIP_SOCKET 0

/* Memory: nothing is reserved; the port's allocator refuses beyond its bound, and lwIP then drops packets. */
#define MEM_LIBC_MALLOC 1
#define MEMP_MEM_MALLOC 1
#define MEM_ALIGNMENT 16
#define mem_clib_malloc kelda_lwip_malloc
#define mem_clib_calloc kelda_lwip_calloc
#define mem_clib_free kelda_lwip_free
#define PBUF_POOL_BUFSIZE 1536

#define LWIP_IPV4 1
#define LWIP_IPV6 0
#define LWIP_ARP 1
#define LWIP_ETHERNET 1
#define ETH_PAD_SIZE 0
#define ARP_QUEUEING 1
/* Answers to clients that come while the way to them is not known yet, all at once after a start. lwIP keeps 3. */
#define ARP_QUEUE_LEN 1024
#define ARP_TABLE_SIZE 32
#define IP_REASSEMBLY 0
#define IP_FRAG 0
#define LWIP_ICMP 1
#define LWIP_RAW 0
#define LWIP_DNS 0
#define LWIP_IGMP 0
#define LWIP_UDP 1
#define LWIP_DHCP 1
/* The probe for a second owner of the address costs more than a second at start; the answer to a wrong lease is DHCP's. */
#define DHCP_DOES_ARP_CHECK 0
#define LWIP_NETIF_STATUS_CALLBACK 1
#define LWIP_NETIF_LINK_CALLBACK 0
#define LWIP_NETIF_HOSTNAME 1
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1
#define LWIP_CHKSUM kelda_lwip_checksum

/* 127.0.0.1 is ours (net/lwip_loopback.h): lwIP's own runs until nothing is left to deliver, which may be never. */
#define LWIP_HAVE_LOOPIF 0
#define LWIP_NETIF_LOOPBACK 0

#define LWIP_TCP 1
#define TCP_MSS 1460
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 2
#define TCP_WND (128 * 1024)
/* A window that opens by this much is announced at once. Our windows are often far below TCP_WND (net/window_pool.h). */
#define TCP_WND_UPDATE_THRESHOLD (2 * TCP_MSS)
#define TCP_SND_BUF (128 * 1024)
#define TCP_SND_QUEUELEN (4 * TCP_SND_BUF / TCP_MSS)
#define TCP_SNDLOWAT (TCP_SND_BUF / 4)
#define TCP_QUEUE_OOSEQ 1
#define TCP_OOSEQ_MAX_BYTES (64 * 1024)
#define TCP_OOSEQ_MAX_PBUFS 64
#define LWIP_TCP_SACK_OUT 1
#define LWIP_TCP_KEEPALIVE 1
#define LWIP_TCP_TIMESTAMPS 0
#define LWIP_TCP_RTO_TIME 1000
#define TCP_MAXRTX 8
#define TCP_SYNMAXRTX 5
#define TCP_MSL 15000
/* lwIP's own backlog is a byte wide; the port bounds half-open connections instead, when lwIP asks at each SYN. */
#define TCP_LISTEN_BACKLOG 0
#define LWIP_TCP_PCB_NUM_EXT_ARGS 1

#define LWIP_HOOK_FILENAME "net/lwip/hooks.h"
#define LWIP_HOOK_TCP_ISN kelda_lwip_isn

#define LWIP_STATS 1
#define LWIP_STATS_DISPLAY 0
#define MEM_STATS 0
#define MEMP_STATS 0
#define SYS_STATS 0

#define LWIP_DISABLE_TCP_SANITY_CHECKS 0

#endif
