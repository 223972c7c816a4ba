// SPDX-License-Identifier: MIT
/*
 * Asks /dev/mmnf to read every 16th MiB of a file by io_uring, works meanwhile, and
 * is told when the data is there: no thread waits.
 *
 *	cc prefetch-uring.c -luring -o prefetch-uring
 *	./prefetch-uring FILE
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/mmnf.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define STEP (16ULL << 20)
#define PART (1ULL << 20)
#define MOST 4096

int main(int argc, char **argv)
{
	static struct mmnf_range part[MOST];
	struct mmnf_ioc_attach attach = { .size = sizeof(attach),
					  .ndim = 1,
					  .element_bytes = 1,
					  .stride_bytes = { 1 } };
	struct mmnf_ioc_prefetch prefetch = { .size = sizeof(prefetch) };
	struct mmnf_uring_cmd command = { .arg = (unsigned long)&prefetch };
	unsigned long long at, sum = 0;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	const unsigned char *p;
	struct stat st;
	int file, dev;
	unsigned int nr = 0;

	if (argc != 2)
		errx(2, "usage: prefetch-uring FILE");
	file = open(argv[1], O_RDONLY);
	if (file < 0 || fstat(file, &st))
		err(1, "%s", argv[1]);
	dev = open("/dev/mmnf", O_RDWR);
	if (dev < 0)
		err(1, "/dev/mmnf");
	attach.fd = file;
	attach.extent[0] = (unsigned long long)st.st_size;
	if (ioctl(dev, MMNF_IOC_ATTACH, &attach))
		err(1, "attach");
	for (at = 0; at < attach.extent[0] && nr < MOST; at += STEP)
		part[nr++] = (struct mmnf_range) { at, PART };
	prefetch.flags = MMNF_PREFETCH_WAIT;
	prefetch.select.items = (unsigned long)part;
	prefetch.select.nr_items = nr;

	errno = -io_uring_queue_init(8, &ring, 0);
	if (errno)
		err(1, "io_uring");
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, dev, NULL, 0, 0);
	sqe->cmd_op = MMNF_IOC_PREFETCH;
	memcpy(sqe->cmd, &command, sizeof(command));
	io_uring_submit(&ring);

	while (io_uring_peek_cqe(&ring, &cqe))
		; /* whatever there is to do */
	if (cqe->res < 0) {
		errno = -cqe->res;
		err(1, "prefetch");
	}
	p = mmap(NULL, attach.extent[0], PROT_READ, MAP_SHARED, dev, 0);
	if (p == MAP_FAILED)
		err(1, "mmap");
	for (at = 0; at < attach.extent[0]; at += STEP)
		sum += p[at]; /* no wait: it is resident */
	printf("%u parts, %llu bytes read meanwhile, sum %llu\n", nr,
	       (unsigned long long)prefetch.out_queued_bytes, sum);
	io_uring_queue_exit(&ring);
	return 0;
}
