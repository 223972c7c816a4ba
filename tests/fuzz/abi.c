// SPDX-License-Identifier: MIT
/*
 * Random use of /dev/mmnf: structs that are nearly right, at addresses that are
 * nearly there, by ioctl and by io_uring, between mappings that come, move and go,
 * over files that are written, cut and punched.
 *
 *	make fuzz F=abi S=seed N=operations
 *
 * MMNF_FUZZ_SEED and MMNF_FUZZ_N say the same; the same seed gives the same calls.
 * MMNF_FUZZ_TRACE=1 prints each before it is made.
 *
 * Laws: a call returns an errno that its manual names; every word that can be read
 * is the one of its offset, or zero; the counters obey their laws; whatever was
 * done, closing gives everything back.  The kernel's own watchers see the rest.
 */
#include "fuzz/cover.h"
#include "fuzz/hint.h"

/* Operations */

static void op_open(struct __test_metadata *_metadata)
{
	struct device *d = &device[rnd(NR_DEVICES)];

	TRACE("open %td", d - device);
	if (d->fd >= 0)
		close(d->fd);
	d->file = -1;
	d->fd = one_in(4) ? -1 : open(MMNF_DEVICE, O_RDWR | O_CLOEXEC);
	(void)_metadata;
}

static void op_attach(struct __test_metadata *_metadata)
{
	struct device *d = &device[rnd(NR_DEVICES)];
	int which = rnd(one_in(8) ? NR_FILES : F_READ_ONLY + 1), err;
	u64 bytes = which == F_SPARSE ? SPARSE_BYTES : FILE_BYTES;
	struct mmnf_ioc_attach attach = vector_of(file[which], bytes);
	bool write = one_in(3);

	if (d->file >= 0 && one_in(2)) {
		close(d->fd);
		*d = (struct device) { .fd = -1, .file = -1 };
	}
	if (d->fd < 0)
		d->fd = open(MMNF_DEVICE, O_RDWR | O_CLOEXEC);
	switch (rnd(3)) {
	case 0: /* planes, rows, elements */
		attach.ndim = 3;
		attach.extent[0] = 16;
		attach.extent[1] = bytes / 16 / 4096;
		attach.extent[2] = 512;
		attach.stride_bytes[0] = bytes / 16;
		attach.stride_bytes[1] = 4096;
		attach.stride_bytes[2] = 8;
		break;
	case 1: /* from the end to the start */
		attach.data_offset_bytes = bytes - 8;
		attach.stride_bytes[0] = -8;
		break;
	}
	if (one_in(2))
		attach.record_bytes = 8 + rnd(100000);
	if (write)
		attach.flags = MMNF_ATTACH_WRITE;
	spoil(&attach, sizeof(attach));
	TRACE("attach %td file %d", d - device, which);
	err = call(_metadata, d->fd, MMNF_IOC_ATTACH,
		   place(&attach, sizeof(attach)));
	if (!err) {
		d->file = which;
		/* As the flags were in the end, spoiled or not. */
		d->write = attach.flags & MMNF_ATTACH_WRITE;
		d->ndim = attach.ndim;
		d->has_records = attach.record_bytes;
	}
}

static void op_policy(struct __test_metadata *_metadata)
{
	struct device *d = some_device();
	struct mmnf_ioc_policy policy = {
		.size = sizeof(policy),
		.mode = rnd(3),
		.min_depth = rnd(16),
		.max_depth = rnd(512),
		.max_window_bytes = rnd(8 * MIB),
		.max_inflight_bytes = rnd(64 * MIB),
	};

	spoil(&policy, sizeof(policy));
	TRACE("policy %td", d - device);
	call(_metadata, d->fd,
	     one_in(4) ? MMNF_IOC_GET_POLICY : MMNF_IOC_SET_POLICY,
	     place(&policy, sizeof(policy)));
}

static void op_stats(struct __test_metadata *_metadata)
{
	struct device *d = some_device();
	struct mmnf_ioc_info info = { .size = sizeof(info) };

	TRACE("stats %td", d - device);
	if (d->file >= 0)
		get_stats(_metadata, d->fd);
	spoil(&info, sizeof(info));
	call(_metadata, d->fd, MMNF_IOC_GET_INFO, place(&info, sizeof(info)));
}

static void op_anything(struct __test_metadata *_metadata)
{
	struct device *d = some_device();
	unsigned long cmd = _IO(MMNF_IOC_TYPE, 0x80 + rnd(10));
	u32 words[64];
	size_t i;

	for (i = 0; i < 64; i++)
		words[i] = odd_number();
	if (one_in(2))
		words[0] = rnd(260);
	/* Numbers of the file layer's own, which answers for them, are left out. */
	if (one_in(4))
		cmd = _IOC(rnd(4), MMNF_IOC_TYPE, rnd(256), rnd(512));
	TRACE("anything %td cmd %lx", d - device, cmd);
	call(_metadata, d->fd, cmd, place(words, sizeof(words)));
}

static void op_map(struct __test_metadata *_metadata)
{
	struct device *d = some_device();
	struct map *m = &map[rnd(NR_MAPS)];
	int prot = PROT_READ, flags = one_in(4) ? MAP_PRIVATE : MAP_SHARED;
	u64 off = rnd(FILE_BYTES / PAGE) * PAGE, len = 1 + rnd(FILE_BYTES);

	if (one_in(3))
		prot |= PROT_WRITE;
	if (one_in(16))
		prot |= PROT_EXEC;
	if (one_in(8))
		off = d->file == F_SPARSE ? rnd(SPARSE_BYTES / PAGE) * PAGE :
					    odd_number() & ~(PAGE - 1);
	if (one_in(16))
		len = odd_number();
	if (len <= FILE_BYTES && one_in(16))
		flags |= MAP_POPULATE;
	if (m->p)
		munmap(m->p, m->len);
	TRACE("map %td of %td prot %d off %llx len %llx", m - map, d - device,
	      prot, off, len);
	m->p = mmap(NULL, len, prot, flags, d->fd, off);
	if (m->p == MAP_FAILED) {
		m->p = NULL;
		return;
	}
	EXPECT_FALSE(prot & PROT_EXEC);
	EXPECT_TRUE(!(prot & PROT_WRITE) || d->write);
	m->off = off;
	m->len = (len + PAGE - 1) & ~(PAGE - 1);
	m->write = prot & PROT_WRITE;
}

static void op_remap(struct __test_metadata *_metadata)
{
	struct map *m = &map[rnd(NR_MAPS)];
	u64 part, len;
	char *p;

	if (!m->p)
		return;
	len = m->len;
	part = rnd(len / PAGE) * PAGE;
	switch (rnd(7)) {
	case 0: /* the front goes */
		TRACE("unmap the front of %td", m - map);
		munmap(m->p, part);
		m->p += part;
		m->off += part;
		m->len -= part;
		break;
	case 1: /* the end goes */
		TRACE("unmap the end of %td", m - map);
		munmap(m->p + part, len - part);
		m->len = part;
		break;
	case 2:
		len = (1 + rnd(1024)) * PAGE;
		TRACE("remap %td to %llx", m - map, len);
		p = mremap(m->p, m->len, len, MREMAP_MAYMOVE);
		if (p != MAP_FAILED) {
			m->p = p;
			m->len = len;
		}
		break;
	case 3:
		TRACE("protect %td", m - map);
		EXPECT_NE(0, mprotect(m->p, PAGE, PROT_READ | PROT_EXEC));
		if (!m->write)
			EXPECT_NE(0,
				  mprotect(m->p, PAGE, PROT_READ | PROT_WRITE));
		break;
	default: {
		static const int advice[] = {
			MADV_DONTNEED, MADV_WILLNEED,	MADV_RANDOM,
			MADV_NORMAL,   MADV_SEQUENTIAL, MADV_COLD,
			MADV_PAGEOUT,  MADV_HUGEPAGE,	MADV_DONTFORK,
			MADV_DOFORK,
		};
		int which = advice[rnd(sizeof(advice) / sizeof(*advice))];

		TRACE("advise %td %d", m - map, which);
		madvise(m->p + part, one_in(2) ? PAGE : len - part, which);
	}
	}
	if (!m->len)
		m->p = NULL;
}

static void try_store(void *p, u64 value)
{
	if (!sigsetjmp(bus_env, 1)) {
		bus_armed = 1;
		*(volatile u64 *)p = value;
	}
	bus_armed = 0;
}

static void op_touch(struct __test_metadata *_metadata)
{
	struct map *m = &map[rnd(NR_MAPS)];
	u64 nr = 1 + rnd(8), pos, word, stride;

	if (!m->p)
		return;
	pos = rnd(m->len) & ~7ULL;
	stride = one_in(2) ? PAGE : rnd(m->len) & ~7ULL;
	TRACE("touch %td at %llx by %llx", m - map, pos, stride);
	for (; nr && pos < m->len; nr--, pos += stride) {
		if (!try_load(m->p + pos, &word)) {
			nr_bus++;
			continue;
		}
		nr_words++;
		EXPECT_TRUE(!word || word == word_at(m->off + pos))
		TH_LOG("operation %llu: at %llx stands %llx", done,
		       m->off + pos, word);
		if (m->write && one_in(2))
			try_store(m->p + pos, word_at(m->off + pos));
	}
}

/* As op_touch, but the kernel touches: a page of it is copied through a pipe. */
static void op_pass(struct __test_metadata *_metadata)
{
	struct map *m = &map[rnd(NR_MAPS)];
	u64 word[PAGE / 8], pos;
	ssize_t bytes, i;

	if (!m->p)
		return;
	pos = rnd(m->len) & ~7ULL;
	TRACE("pass %td at %llx", m - map, pos);
	bytes = write(pass[1], m->p + pos,
		      m->len - pos < PAGE ? m->len - pos : PAGE);
	if (bytes <= 0) {
		nr_bus++;
		return;
	}
	ASSERT_EQ(bytes, read(pass[0], word, bytes));
	for (i = 0; i < bytes / 8; i++) {
		EXPECT_TRUE(!word[i] ||
			    word[i] == word_at(m->off + pos + i * 8))
		TH_LOG("operation %llu: at %llx stands %llx", done,
		       m->off + pos + i * 8, word[i]);
	}
	nr_words += bytes / 8;
}

/* The file below changes; every word that is written is the right one. */
static void op_file(struct __test_metadata *_metadata)
{
	int which = rnd(F_READ_ONLY), fd = file[which];
	u64 off = rnd(FILE_BYTES / PAGE) * PAGE, len = (1 + rnd(16)) * PAGE;

	TRACE("file %d at %llx for %llx", which, off, len);
	switch (rnd(6)) {
	case 0:
		if (one_in(4) && which != F_SPARSE) {
			ftruncate(fd, rnd(FILE_BYTES) & ~7ULL);
			ftruncate(fd, FILE_BYTES);
		}
		break;
	case 1:
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off,
			  len);
		break;
	case 2:
		posix_fadvise(fd, off, len, POSIX_FADV_DONTNEED);
		break;
	case 3:
		sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
		break;
	default:
		if (off + len > FILE_BYTES)
			len = FILE_BYTES - off;
		fill_field(_metadata, fd, off, off + len);
	}
}

/* What only root may set, and nobody can break. */
static void op_sysfs(struct __test_metadata *_metadata)
{
	static const char *const name[] = { "mode",	 "max_depth",
					    "min_depth", "max_window_bytes",
					    "faults",	 "max_inflight_bytes" };
	char path[256], text[64];
	int fd;

	snprintf(path, sizeof(path), MMNF_SYSFS "/fields/%llu/%s", 1 + rnd(12),
		 name[rnd(6)]);
	snprintf(text, sizeof(text), "%lld", (s64)odd_number());
	TRACE("sysfs %s %s", path, text);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, one_in(2) ? text : "auto", 4) < 0)
		errno = 0;
	/* A field whose last reference was the worker's may go meanwhile. */
	EXPECT_TRUE(pread(fd, text, sizeof(text), 0) >= 0 || errno == ENODEV)
	TH_LOG("operation %llu: %s: %s", done, path, strerror(errno));
	close(fd);
}

static void op_fork(struct __test_metadata *_metadata)
{
	pid_t pid;
	u64 word;
	int i;

	if (!one_in(20))
		return;
	TRACE("fork");
	pid = fork();
	if (!pid) {
		for (i = 0; i < NR_MAPS; i++)
			if (map[i].p)
				try_load(map[i].p, &word);
		_exit(0);
	}
	EXPECT_EQ(0, wait_child(pid));
}

static u64 number(const char *name, u64 otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

FIXTURE(abi) {};

FIXTURE_SETUP(abi)
{
}

FIXTURE_TEARDOWN(abi)
{
}

TEST_F_TIMEOUT(abi, laws_hold_whatever_is_done, 86400)
{
	static void (*const op[])(struct __test_metadata *) = {
		op_touch,    op_touch,	op_touch, op_touch,  op_hint,
		op_hint,     op_hint,	op_map,	  op_map,    op_remap,
		op_attach,   op_attach, op_open,  op_policy, op_stats,
		op_anything, op_file,	op_sysfs, op_fork,   op_uring,
		op_pass,
	};
	u64 first = number("MMNF_FUZZ_SEED", 1),
	    n = number("MMNF_FUZZ_N", 20000);
	struct sigaction alarm = { .sa_handler = on_alarm };
	struct sigaction bus = { .sa_handler = bus_handler };
	int i;

	trace = number("MMNF_FUZZ_TRACE", 0);
	seed = first * 0x9e3779b97f4a7c15ULL | 1;
	sigaction(SIGALRM, &alarm, NULL);
	sigaction(SIGBUS, &bus, NULL);
	sigaction(SIGSEGV, &bus, NULL);
	guarded = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, guarded);
	ASSERT_EQ(0, mprotect(guarded + 2 * PAGE, PAGE, PROT_NONE));
	ASSERT_EQ(0, pipe2(pass, O_CLOEXEC));
	make_files(_metadata);
	for (i = 0; i < NR_DEVICES; i++)
		device[i] = (struct device) { .fd = -1, .file = -1 };
	cover_start();
	for (done = 0; done < n && _metadata->passed; done++) {
		op[rnd(sizeof(op) / sizeof(*op))](_metadata);
		cover_collect();
	}
	ksft_print_msg("seed %llu: %llu operations, %llu commands succeeded, "
		       "%llu in the ring, %llu words right, "
		       "%llu touches beyond what is there\n",
		       first, done, nr_ok, nr_async_ok, nr_words, nr_bus);
	fflush(stdout);
	cover_print();
	close_ring();
	for (i = 0; i < NR_MAPS; i++)
		if (map[i].p)
			munmap(map[i].p, map[i].len);
	for (i = 0; i < NR_DEVICES; i++)
		close(device[i].fd);
	EXPECT_TRUE(n < 1000 || (nr_ok > n / 50 && nr_words > n / 50));
	EXPECT_TRUE(n < 1000 || nr_async_ok > n / 500);
	/* Its last reference may be a worker's, or the ring's, for a moment. */
	for (i = 0; i < 1000 && !shell("ls " MMNF_SYSFS "/fields | grep -q .");
	     i++)
		sleep_ms(20);
	EXPECT_NE(0, shell("ls " MMNF_SYSFS "/fields | grep ."));
}

MMNF_HARNESS_MAIN
