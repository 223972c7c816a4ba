// SPDX-License-Identifier: MIT
/*
 * Answers as they may come from a socket: in pieces of any size, in any order, and
 * from servers that break the protocol.  The server is a process of this file: its
 * 8 bytes at offset o, for o a multiple of 8, are o in big-endian until written.
 */
#define KTAP_TIMEOUT 120
#include "net_util.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>

#define SPACE_BYTES (64ULL << 20)
#define PAGE 4096ULL
#define HELD 6 /* requests that are answered together */
#define URI "nbd+unix:///?socket=odd#raw,dtype=u64,shape=8388608"

#define MAGIC 0x67446698U

enum oddity { NONE, BAD_MAGIC, BAD_COOKIE, TWICE, CUT_SHORT, EARLY };

/* What the server is to do; shared with it. */
static struct script {
	enum oddity oddity; /* of the tenth answer; of the first write */
	uint64_t most_piece; /* bytes it sends or takes at once */
	uint32_t error; /* of requests from error_from on */
	uint64_t error_from, seed;
	unsigned int nr_answers, nr_connections;
} * script;

static char *space; /* the server's */
static pid_t server_pid;

struct request {
	uint32_t magic, type;
	uint64_t cookie, offset;
	uint32_t bytes;
} __attribute__((packed));

static uint64_t chance(uint64_t below)
{
	script->seed = script->seed * 6364136223846793005ULL + 1;
	return (script->seed >> 33) % below;
}

/* Ends the process that serves a connection when that is over. */
static void transfer(int fd, void *memory, size_t bytes, bool out)
{
	size_t at, n;
	ssize_t done;

	for (at = 0; at < bytes; at += (size_t)done) {
		n = 1 + chance(script->most_piece);
		n = n < bytes - at ? n : bytes - at;
		done = out ? send(fd, (char *)memory + at, n, MSG_NOSIGNAL) :
			     recv(fd, (char *)memory + at, n, 0);
		if (done <= 0)
			_exit(0);
	}
}

static void put32(int fd, uint32_t value)
{
	value = htobe32(value);
	transfer(fd, &value, sizeof(value), true);
}

static void put64(int fd, uint64_t value)
{
	value = htobe64(value);
	transfer(fd, &value, sizeof(value), true);
}

static void put16(int fd, uint16_t value)
{
	value = htobe16(value);
	transfer(fd, &value, sizeof(value), true);
}

static uint32_t take32(int fd)
{
	uint32_t value;

	transfer(fd, &value, sizeof(value), false);
	return be32toh(value);
}

/* Until the client has chosen the export; no option but that is known. */
static void shake_hands(int fd)
{
	uint32_t option, bytes;
	char data[4096];
	uint64_t magic;

	put64(fd, 0x4e42444d41474943ULL);
	put64(fd, 0x49484156454f5054ULL);
	put16(fd, 3);
	take32(fd);
	for (;;) {
		transfer(fd, &magic, sizeof(magic), false);
		option = take32(fd);
		bytes = take32(fd);
		if (bytes > sizeof(data))
			_exit(0);
		transfer(fd, data, bytes, false);
		put64(fd, 0x3e889045565a9ULL);
		put32(fd, option);
		if (option != 7) {
			put32(fd, 0x80000001U);
			put32(fd, 0);
			continue;
		}
		put32(fd, 3);
		put32(fd, 12);
		put16(fd, 0);
		put64(fd, SPACE_BYTES);
		put16(fd, 1 | 4); /* flags; it can flush */
		put64(fd, 0x3e889045565a9ULL);
		put32(fd, option);
		put32(fd, 1);
		put32(fd, 0);
		return;
	}
}

static void answer(int fd, const struct request *r)
{
	enum oddity oddity = ++script->nr_answers == 10 ? script->oddity : NONE;
	uint64_t offset = be64toh(r->offset);
	bool failed = script->error && offset >= script->error_from;
	char head[16];
	uint32_t part;
	unsigned int i;

	for (i = 0; i < 1 + (oddity == TWICE); i++) {
		part = htobe32(oddity == BAD_MAGIC ? MAGIC + 1 : MAGIC);
		memcpy(head, &part, 4);
		part = htobe32(failed ? script->error : 0);
		memcpy(head + 4, &part, 4);
		memcpy(head + 8, &r->cookie, 8);
		head[12] ^= oddity == BAD_COOKIE ? 0x40 : 0;
		transfer(fd, head, sizeof(head), true);
		if (oddity == CUT_SHORT) {
			transfer(fd, space + offset, 100, true);
			_exit(0);
		}
		if (!failed && be32toh(r->type) == 0)
			transfer(fd, space + offset, be32toh(r->bytes), true);
	}
}

static bool is_more(int fd)
{
	struct pollfd pfd = { fd, POLLIN, 0 };

	return poll(&pfd, 1, 2) > 0;
}

/* What has come within a moment is answered in any order. */
static void serve(int fd)
{
	struct request held[HELD];
	unsigned int nr = 0, i;

	shake_hands(fd);
	for (;;) {
		if (nr < HELD && (!nr || is_more(fd))) {
			struct request *r = &held[nr++];

			transfer(fd, r, sizeof(*r), false);
			if (be32toh(r->magic) != 0x25609513U ||
			    (be32toh(r->type) & 0xffff) == 2)
				_exit(0);
			if ((be32toh(r->type) & 0xffff) != 1)
				continue;
			if (script->oddity == EARLY) {
				script->oddity = NONE;
				answer(fd, r);
			}
			transfer(fd, space + be64toh(r->offset),
				 be32toh(r->bytes), false);
			continue;
		}
		i = (unsigned int)chance(nr);
		answer(fd, &held[i]);
		held[i] = held[--nr];
	}
}

static void stop_server(void)
{
	/* With the processes that serve. */
	if (server_pid > 0)
		kill(-server_pid, SIGKILL);
}

static void start_server(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "odd" };
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), fd;
	uint64_t i, word;

	ASSERT_EQ(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
	ASSERT_EQ(listen(listener, 16), 0);
	space = mmap(NULL, SPACE_BYTES, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_TRUE(space != MAP_FAILED);
	for (i = 0; i < SPACE_BYTES; i += 8) {
		word = htobe64(i);
		memcpy(space + i, &word, 8);
	}
	server_pid = fork();
	if (!server_pid) {
		setpgid(0, 0);
		signal(SIGCHLD, SIG_IGN);
		while ((fd = accept(listener, NULL, NULL)) >= 0) {
			script->nr_connections++;
			if (!fork())
				serve(fd);
			close(fd);
		}
		_exit(0);
	}
	setpgid(server_pid, server_pid);
	close(listener);
	ASSERT_EQ(atexit(stop_server), 0);
}

static struct mmnf_field *begin(unsigned int connections, bool writable)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	scratch();
	need_servers();
	script = mmap(NULL, sizeof(*script), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_TRUE(script != MAP_FAILED);
	script->most_piece = 1 << 20;
	start_server();
	opts.net_connections = connections;
	opts.net_holes_off = 1;
	opts.prefetch_off = 1;
	opts.writable = writable;
	if (mmnf_field_open(&field, URI, &opts))
		ktap_failed("# %s\n", mmnf_last_error());
	ASSERT_EQ(ktap_shared->failures, 0);
	return field;
}

static uint64_t at(uint64_t index)
{
	return htobe64(index * 8);
}

static void read_pages(struct mmnf_field *field, uint64_t first, uint64_t nr)
{
	uint64_t i, got;

	for (i = first; i < first + nr; i++) {
		ASSERT_EQ(read_one(field, i * 512 + i % 512, &got), 8);
		EXPECT_EQ(got, at(i * 512 + i % 512));
	}
}

/* Boxes of one element, of some pages and of half a megabyte, all at once. */
static void read_mixed(struct mmnf_field *field)
{
	enum { BOXES = 120, MOST = 65536 };
	struct mmnf_box box[BOXES] = { 0 };
	uint64_t *got = malloc(BOXES * MOST * 8), *p = got, i, k;
	size_t all = 0;

	ASSERT_TRUE(got);
	for (i = 0; i < BOXES; i++) {
		box[i].step[0] = 1;
		box[i].start[0] = i * MOST + i * 37;
		box[i].count[0] = i % 3 == 0 ? 1 : i % 3 == 1 ? 700 : 60000;
		all += box[i].count[0] * 8;
	}
	ASSERT_EQ(mmnf_batch_get_boxes(field, box, BOXES, got, all), all);
	for (i = 0; i < BOXES; i++)
		for (k = 0; k < box[i].count[0]; k++)
			ASSERT_EQ(*p++, at(box[i].start[0] + k));
	free(got);
}

TEST(pieces_of_any_size_in_any_order)
{
	struct mmnf_field *field = begin(2, false);

	read_mixed(field);
	mmnf_field_close(field);
}

TEST(pieces_smaller_than_a_head)
{
	struct mmnf_field *field = begin(1, false);

	script->most_piece = 7;
	read_pages(field, 1, 12);
	script->most_piece = 3000;
	read_mixed(field);
	mmnf_field_close(field);
}

static void break_off(enum oddity oddity)
{
	struct mmnf_field *field = begin(1, false);

	ASSERT_EQ(script->nr_connections, 1);
	script->oddity = oddity;
	read_pages(field, 1, 40);
	EXPECT_GE(script->nr_connections, 2);
	EXPECT_GE(server_stats(field, 0).reconnects, 1);
	mmnf_field_close(field);
}

TEST(answer_without_its_number)
{
	break_off(BAD_MAGIC);
}

TEST(answer_to_what_was_not_asked)
{
	break_off(BAD_COOKIE);
}

TEST(answered_twice)
{
	break_off(TWICE);
}

TEST(closed_amid_an_answer)
{
	break_off(CUT_SHORT);
}

TEST(errors_are_the_servers)
{
	static const struct {
		uint32_t error;
		int expected;
	} cases[] = { { ENOSPC, -ENOSPC },
		      { EINVAL, -EINVAL },
		      { EPERM, -EPERM },
		      { 9999, -EINVAL },
		      { 0x80000005U, -EINVAL } };
	struct mmnf_field *field = begin(1, false);
	unsigned int i;
	uint64_t got;

	script->error_from = SPACE_BYTES / 2;
	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		script->error = cases[i].error;
		EXPECT_EQ(read_one(field, (4 << 20) + 512 * i, &got),
			  cases[i].expected);
		EXPECT_TRUE(strstr(mmnf_last_error(), "server 0"));
	}
	/* The others are right all the same. */
	read_pages(field, 1, 20);
	EXPECT_EQ(script->nr_connections, 1);
	mmnf_field_close(field);
}

/* The server takes it slowly: requests and data go out in parts. */
static void write_and_look(enum oddity oddity)
{
	enum { NR = 400000 };
	struct mmnf_field *field = begin(1, true);
	struct mmnf_box box = { { 1000 }, { NR }, { 1 } };
	uint64_t *data = malloc(NR * 8), i;

	ASSERT_TRUE(data);
	for (i = 0; i < NR; i++)
		data[i] = ~at(i);
	script->oddity = oddity;
	script->most_piece = 30000;
	ASSERT_EQ(mmnf_write(field, &box, data, NR * 8), NR * 8);
	ASSERT_EQ(mmnf_field_sync(field), 0);
	EXPECT_EQ(memcmp(space + 8000, data, NR * 8), 0);
	EXPECT_EQ(memcmp(space + 7992, &(uint64_t) { at(999) }, 8), 0);
	EXPECT_EQ(memcmp(space + 8000 + NR * 8, &(uint64_t) { at(1000 + NR) },
			 8),
		  0);
	memset(data, 0, NR * 8);
	ASSERT_EQ(mmnf_get(field, &box, data, NR * 8), NR * 8);
	for (i = 0; i < NR; i++)
		ASSERT_EQ(data[i], ~at(i));
	EXPECT_EQ(script->nr_connections, oddity ? 2 : 1);
	mmnf_field_close(field);
	free(data);
}

TEST(written_in_parts)
{
	write_and_look(NONE);
}

TEST(answered_before_it_was_sent)
{
	write_and_look(EARLY);
}

TEST_MAIN
