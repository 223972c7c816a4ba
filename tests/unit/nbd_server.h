/* SPDX-License-Identifier: MIT */
/*
 * A small NBD server whose answers about its holes are wrong, or do not come.  No
 * server that people use does so.  Its export is 1 GiB: zeros, then from DATA_AT on
 * bytes of 0x55.  The 4096 bytes at PAGE_AT can be written.
 */
#ifndef MMNF_TEST_NBD_SERVER_H
#define MMNF_TEST_NBD_SERVER_H

#include "net_util.h"

#include <endian.h>
#include <sys/mman.h>

#define EXPORT_BYTES (1ULL << 30)
#define DATA_AT (256ULL << 20)
#define PAGE_AT (1ULL << 20)
#define LATE_MS 300

/* Of all its processes, and the test. */
static struct nbd_shared {
	char page[4096];
	bool is_written;
	unsigned int nr_asked, nr_answered, nr_written;
} * nbd_shared;

enum manner {
	NBD_HONEST,
	NBD_NO_LENGTH, /* an extent of 0 bytes before the right ones */
	NBD_TOO_LONG, /* the last extent goes on to 4 GiB */
	NBD_TOO_MANY, /* 100,000 extents of 512 bytes */
	NBD_ERROR,
	NBD_HANG_UP,
	NBD_SILENT,
	NBD_MANNERS,
	NBD_LATE = NBD_MANNERS, /* as it was LATE_MS before */
	NBD_GARBLED, /* the answer to the first write is none */
};

static void nbd_take(int fd, void *buf, size_t bytes)
{
	char *p = buf;
	ssize_t n;

	for (; bytes; p += n, bytes -= (size_t)n) {
		n = read(fd, p, bytes);
		if (n <= 0)
			_exit(0);
	}
}

static void nbd_give(int fd, const void *buf, size_t bytes)
{
	const char *p = buf;
	ssize_t n;

	for (; bytes; p += n, bytes -= (size_t)n) {
		n = write(fd, p, bytes);
		if (n <= 0)
			_exit(0);
	}
}

static void nbd_give32(int fd, uint32_t v)
{
	v = htobe32(v);
	nbd_give(fd, &v, sizeof(v));
}

static void nbd_give64(int fd, uint64_t v)
{
	v = htobe64(v);
	nbd_give(fd, &v, sizeof(v));
}

static uint32_t nbd_take32(int fd)
{
	uint32_t v;

	nbd_take(fd, &v, sizeof(v));
	return be32toh(v);
}

static void nbd_option_reply(int fd, uint32_t option, uint32_t type,
			     const void *data, uint32_t bytes)
{
	nbd_give64(fd, 0x3e889045565a9ULL);
	nbd_give32(fd, option);
	nbd_give32(fd, type);
	nbd_give32(fd, bytes);
	nbd_give(fd, data, bytes);
}

/* Up to the transmission phase. */
static void nbd_greet(int fd)
{
	/* NBD_INFO_EXPORT; flags: HAS_FLAGS, CAN_MULTI_CONN */
	static const unsigned char export[12] = { 0,	0, 0, 0, 0,    0,
						  0x40, 0, 0, 0, 0x01, 0x01 };
	static const char context[] = "\0\0\0\1base:allocation";
	static const unsigned char flags[2] = { 0, 3 };
	char skip[4096];
	uint32_t option, bytes;

	nbd_give(fd, "NBDMAGICIHAVEOPT", 16);
	nbd_give(fd, flags, 2);
	nbd_take32(fd);
	do {
		nbd_take(fd, skip, 8);
		option = nbd_take32(fd);
		bytes = nbd_take32(fd);
		if (bytes > sizeof(skip))
			_exit(1);
		nbd_take(fd, skip, bytes);
		if (option == 10) /* SET_META_CONTEXT */
			nbd_option_reply(fd, option, 4, context,
					 sizeof(context) - 1);
		if (option == 6 || option == 7) /* INFO, GO */
			nbd_option_reply(fd, option, 3, export, sizeof(export));
		if (option == 6 || option == 7 || option == 8 || option == 10)
			nbd_option_reply(fd, option, 1, NULL, 0);
		else
			nbd_option_reply(fd, option, 1U << 31 | 1, NULL, 0);
	} while (option != 7);
}

static void nbd_chunk(int fd, uint32_t type, uint64_t cookie, uint32_t bytes)
{
	nbd_give32(fd, 0x668e33ef);
	nbd_give32(fd, 1U << 16 | type);
	nbd_give(fd, &cookie, sizeof(cookie));
	nbd_give32(fd, bytes);
}

static void nbd_extents(int fd, enum manner manner, uint64_t cookie,
			uint64_t offset, uint32_t bytes)
{
	uint32_t hole = offset >= DATA_AT	 ? 0 :
			bytes < DATA_AT - offset ? bytes :
						   (uint32_t)(DATA_AT - offset);
	bool is_hole;
	unsigned int i, nr;

	if (nbd_shared->is_written && offset < PAGE_AT)
		hole = (uint32_t)(PAGE_AT - offset);
	is_hole = hole == bytes;
	nr = (hole > 0) + !is_hole;
	__atomic_fetch_add(&nbd_shared->nr_asked, 1, __ATOMIC_RELEASE);
	if (manner == NBD_LATE)
		sleep_ms(LATE_MS);
	if (manner == NBD_HANG_UP)
		_exit(0);
	if (manner == NBD_SILENT)
		return;
	if (manner == NBD_ERROR) {
		nbd_chunk(fd, 1U << 15 | 1, cookie, 6);
		nbd_give32(fd, EINVAL);
		nbd_give(fd, "\0", 2);
		return;
	}
	if (manner == NBD_TOO_MANY) {
		nbd_chunk(fd, 5, cookie, 4 + 8 * 100000);
		nbd_give32(fd, 1);
		for (i = 0; i < 100000; i++) {
			nbd_give32(fd, 512);
			nbd_give32(fd, offset + i * 512 < DATA_AT ?
					       3 * (i & 1) :
					       0);
		}
		return;
	}
	nbd_chunk(fd, 5, cookie, 4 + 8 * (nr + (manner == NBD_NO_LENGTH)));
	nbd_give32(fd, 1);
	if (manner == NBD_NO_LENGTH) {
		nbd_give32(fd, 0);
		nbd_give32(fd, 3);
	}
	if (hole) {
		nbd_give32(fd, is_hole && manner == NBD_TOO_LONG ? 0xfffff000 :
								   hole);
		nbd_give32(fd, 3);
	}
	if (!is_hole) {
		nbd_give32(fd, bytes - hole);
		nbd_give32(fd, 0);
	}
	__atomic_fetch_add(&nbd_shared->nr_answered, 1, __ATOMIC_RELEASE);
}

static void nbd_read(int fd, uint64_t cookie, uint64_t offset, uint32_t bytes)
{
	static char data[4096];
	uint32_t n;

	nbd_give32(fd, 0x67446698);
	nbd_give32(fd, 0);
	nbd_give(fd, &cookie, sizeof(cookie));
	for (; bytes; bytes -= n, offset += n) {
		n = bytes < sizeof(data) ? bytes : sizeof(data);
		memset(data, offset < DATA_AT ? 0 : 0x55, n);
		if (offset == PAGE_AT)
			memcpy(data, nbd_shared->page, n);
		nbd_give(fd, data, n);
	}
}

static void nbd_write(int fd, enum manner manner, uint64_t cookie,
		      uint64_t offset, uint32_t bytes)
{
	if (offset != PAGE_AT || bytes > sizeof(nbd_shared->page))
		_exit(1);
	nbd_take(fd, nbd_shared->page, bytes);
	nbd_shared->is_written = true;
	if (manner == NBD_GARBLED && !nbd_shared->nr_written++)
		nbd_give32(fd, 0x12345678);
	else
		nbd_give32(fd, 0x67446698);
	nbd_give32(fd, 0);
	nbd_give(fd, &cookie, sizeof(cookie));
}

static void nbd_serve(int fd, enum manner manner)
{
	uint64_t cookie, offset;
	uint32_t type, bytes;

	nbd_greet(fd);
	for (;;) {
		nbd_take32(fd);
		type = nbd_take32(fd) & 0xffff;
		nbd_take(fd, &cookie, sizeof(cookie));
		nbd_take(fd, &offset, sizeof(offset));
		offset = be64toh(offset);
		bytes = nbd_take32(fd);
		if (type == 0)
			nbd_read(fd, cookie, offset, bytes);
		else if (type == 1)
			nbd_write(fd, manner, cookie, offset, bytes);
		else if (type == 7)
			nbd_extents(fd, manner, cookie, offset, bytes);
		else
			_exit(0);
	}
}

/* As server i of net_util.h; a process for each connection. */
static void nbd_server_start(unsigned int i, enum manner manner)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), conn;

	snprintf(servers[i].socket, sizeof(servers[i].socket), "s%u", i % 10);
	snprintf(servers[i].uri, sizeof(servers[i].uri),
		 "nbd+unix:///?socket=s%u", i % 10);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", servers[i].socket);
	unlink(a.sun_path);
	if (!nbd_shared)
		nbd_shared = mmap(NULL, sizeof(*nbd_shared),
				  PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memset(nbd_shared, 0, sizeof(*nbd_shared));
	ASSERT_EQ(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	ASSERT_EQ(listen(fd, 16), 0);
	fflush(stdout);
	servers[i].pid = fork();
	if (servers[i].pid) {
		close(fd);
		return;
	}
	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	while ((conn = accept(fd, NULL, NULL)) >= 0) {
		if (!fork())
			nbd_serve(conn, manner);
		close(conn);
	}
	_exit(0);
}

#endif
