/* SPDX-License-Identifier: MIT */
/*
 * Servers with all that can go wrong, in memory, and a clock that is moved by
 * looking at it: for tests of writes.
 *
 * A write is seen at once and lost in a crash unless a flush came after it; in a
 * crash, each such write survives by chance.  A connection may break with a write
 * under way: what was sent is then done later, at some moment within the grace
 * time, and the write is sent again over the next connection.  A request may fail
 * for good.
 */
#ifndef MMNF_TEST_SSD_SERVER_H
#define MMNF_TEST_SSD_SERVER_H

#include "ssd_disk.h"

#define GROUPS 2U
#define UNIT 16384ULL
#define SPACE_MAX (2ULL << 20)
#define GRACE_NS 5000000000LL

struct late {
	u64 offset, bytes;
	s64 due_ns;
	char *data;
	struct late *next;
};

struct server {
	char now[SPACE_MAX], stable[SPACE_MAX];
	bool is_volatile[SPACE_MAX / 64]; /* not flushed, by cells of 64 bytes */
	u64 epoch[GROUPS];
	struct late *late;
	/* chance in 1000, of each request */
	u64 crash, lose, fail;
	/* the next so many */
	u64 crash_at_flush, lose_next;
	/* requests are done later, in any order */
	bool is_slow, is_dead[GROUPS];
	struct mmnf_ssd_io *slow[64];
	u32 nr_slow;
	u64 nr_crashes, nr_late, nr_failed, nr_writes;
	u32 align;
};

static struct server server;
static s64 test_clock_ns = 1;

static void server_put(u64 offset, const void *data, u64 bytes)
{
	u64 i;

	memcpy(server.now + offset, data, bytes);
	for (i = offset / 64; i <= (offset + bytes - 1) / 64; i++)
		server.is_volatile[i] = true;
}

static void server_late(void)
{
	struct late **p = &server.late, *l;

	while ((l = *p)) {
		if (l->due_ns > test_clock_ns) {
			p = &l->next;
			continue;
		}
		server_put(l->offset, l->data, l->bytes);
		*p = l->next;
		free(l->data);
		free(l);
	}
}

/* The library's: each look takes 20 ms. */
s64 mmnf_ssd_now_ns(void)
{
	test_clock_ns += 20000000;
	server_late();
	return test_clock_ns;
}

static void server_do(struct mmnf_ssd_io *io);

/* Some of what is under way. */
static void server_run(void)
{
	u64 nr = rnd() % 4;
	u32 i;

	for (; nr && server.nr_slow; nr--) {
		struct mmnf_ssd_io *io;

		i = (u32)(rnd() % server.nr_slow);
		io = server.slow[i];
		server.slow[i] = server.slow[--server.nr_slow];
		server_do(io);
	}
}

void mmnf_ssd_nap(s64 ns)
{
	test_clock_ns += ns;
	server_run();
}

static u64 server_unit(void *arg, u64 offset, u32 *group)
{
	(void)arg;
	*group = (u32)(offset / UNIT % GROUPS);
	return UNIT - offset % UNIT;
}

static bool happens(u64 chance)
{
	return rnd() % 1000 < chance;
}

/* What was not flushed is there or not, by cells; connections are new. */
static void server_crash(u32 group, u64 lost_percent)
{
	struct late **p = &server.late, *l;
	u64 i;
	u32 g;

	server.nr_crashes++;
	server.epoch[group]++;
	for (i = 0; i < SPACE_MAX / 64; i++) {
		server_unit(NULL, i * 64, &g);
		if (g != group)
			continue;
		if (server.is_volatile[i] && rnd() % 100 < lost_percent)
			memcpy(server.now + i * 64, server.stable + i * 64, 64);
		/* What survived the crash is on the disk. */
		memcpy(server.stable + i * 64, server.now + i * 64, 64);
		server.is_volatile[i] = false;
	}
	while ((l = *p)) {
		server_unit(NULL, l->offset, &g);
		if (g != group) {
			p = &l->next;
			continue;
		}
		*p = l->next;
		free(l->data);
		free(l);
	}
}

static void server_flush(u32 group)
{
	u64 i;
	u32 g;

	for (i = 0; i < SPACE_MAX / 64; i++) {
		server_unit(NULL, i * 64, &g);
		if (g != group)
			continue;
		memcpy(server.stable + i * 64, server.now + i * 64, 64);
		server.is_volatile[i] = false;
	}
}

/* The connection breaks; what was sent comes later. */
static void server_lose(struct mmnf_ssd_io *io, u32 group)
{
	struct late *l = calloc(1, sizeof(*l));

	ASSERT_TRUE(l);
	l->offset = io->offset;
	l->bytes = io->bytes;
	l->due_ns = test_clock_ns + (s64)(rnd() % GRACE_NS);
	l->data = malloc(io->bytes);
	ASSERT_TRUE(l->data);
	memcpy(l->data, io->data, io->bytes);
	l->next = server.late;
	server.late = l;
	server.epoch[group]++;
	server.nr_late++;
	io->is_late = true;
}

static void server_do(struct mmnf_ssd_io *io)
{
	u32 group = io->group;

	if (io->op != MMNF_SSD_FLUSH)
		ASSERT_LE(io->bytes, server_unit(NULL, io->offset, &group));
	if (happens(server.crash))
		server_crash(group, 50);
	if (io->op == MMNF_SSD_WRITE) {
		ASSERT_EQ(io->offset % server.align, 0);
		ASSERT_EQ(io->bytes % server.align, 0);
		while (happens(server.lose))
			server_lose(io, group);
		for (; server.lose_next; server.lose_next--)
			server_lose(io, group);
	} else if (io->op == MMNF_SSD_FLUSH && server.crash_at_flush) {
		server.crash_at_flush--;
		server_crash(group, 100);
	}
	if (server.is_dead[group] || happens(server.fail)) {
		server.nr_failed++;
		io->result = -ETIMEDOUT;
		snprintf(io->text, sizeof(io->text), "server %u is away",
			 group);
	} else if (io->op == MMNF_SSD_READ) {
		memcpy(io->data, server.now + io->offset, io->bytes);
	} else if (io->op == MMNF_SSD_WRITE) {
		server.nr_writes++;
		server_put(io->offset, io->data, io->bytes);
	} else {
		server_flush(group);
	}
	io->epoch = server.epoch[group];
	if (happens(server.crash))
		server_crash(group, 50);
	io->done(io);
}

static void server_submit(void *arg, struct mmnf_ssd_io *io)
{
	u32 i;

	(void)arg;
	if (!server.is_slow) {
		server_do(io);
		return;
	}
	for (i = 0; i < server.nr_slow; i++)
		ASSERT_TRUE(io->op == MMNF_SSD_FLUSH ||
			    server.slow[i]->op == MMNF_SSD_FLUSH ||
			    io->offset >= server.slow[i]->offset +
						  server.slow[i]->bytes ||
			    io->offset + io->bytes <= server.slow[i]->offset);
	ASSERT_LT(server.nr_slow, 64);
	server.slow[server.nr_slow++] = io;
}

static KTAP_UNUSED void server_init(u32 align)
{
	memset(&server, 0, sizeof(server));
	server.align = align;
}

static KTAP_UNUSED struct mmnf_ssd_backing server_backing(u64 bytes)
{
	struct mmnf_ssd_backing b = { .bytes = bytes,
				      .identity = "me",
				      .nr_groups = GROUPS,
				      .align = server.align,
				      .unit = server_unit,
				      .submit = server_submit };

	return b;
}

#endif
