/* SPDX-License-Identifier: MIT */
/*
 * Servers for tests of the network: nbdkit, on Unix sockets in the scratch
 * folder.  Its plugin `pattern` is an oracle that is not ours: the 8 bytes at
 * offset o, for o a multiple of 8, are o in big-endian.
 */
#ifndef MMNF_TEST_NET_UTIL_H
#define MMNF_TEST_NET_UTIL_H

#include "field_util.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#define SERVERS_MAX 8

static struct server {
	char socket[8], uri[64], args[200];
	pid_t pid;
} servers[SERVERS_MAX];

/* Of a field of one axis of 8 bytes. */
static KTAP_UNUSED ssize_t read_one(struct mmnf_field *field, uint64_t index,
				    uint64_t *out)
{
	struct mmnf_box box = { { index }, { 1 }, { 1 } };

	return mmnf_get(field, &box, out, sizeof(*out));
}

static KTAP_UNUSED int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static KTAP_UNUSED void sleep_ms(unsigned int ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

	nanosleep(&ts, NULL);
}

static KTAP_UNUSED bool have(const char *program)
{
	char command[64];

	snprintf(command, sizeof(command), "command -v %s >/dev/null 2>&1",
		 program);
	return !system(command);
}

/* Skips where the library or this machine cannot do without. */
static KTAP_UNUSED void need_servers(void)
{
	MMNF_OPTS(mmnf_open_opts, opts);
	struct mmnf_field *field;

	if (!have("nbdkit"))
		SKIP("no nbdkit");
	if (mmnf_field_open(&field,
			    "nbd+unix:///?socket=/#raw,dtype=u8,shape=1",
			    &opts) == -EOPNOTSUPP)
		SKIP("%s", mmnf_last_error());
}

/* What the servers said, of a test that has failed. */
static void servers_tell(void)
{
	FILE *log = fopen("servers.log", "r");
	char line[256];

	while (log && fgets(line, sizeof(line), log))
		printf("# %s", line);
	if (log)
		fclose(log);
}

static void servers_kill(void)
{
	unsigned int i;

	if (ktap_shared->failures)
		servers_tell();

	for (i = 0; i < SERVERS_MAX; i++)
		if (servers[i].pid > 0) {
			kill(servers[i].pid, SIGKILL);
			waitpid(servers[i].pid, NULL, 0);
		}
}

static KTAP_UNUSED void server_kill(unsigned int i)
{
	ASSERT_GT(servers[i].pid, 0);
	kill(servers[i].pid, SIGKILL);
	ASSERT_EQ(waitpid(servers[i].pid, NULL, 0), servers[i].pid);
	servers[i].pid = 0;
}

static bool answers(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	bool ok;

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	ok = !connect(fd, (struct sockaddr *)&a, sizeof(a));
	close(fd);
	return ok;
}

/*
 * Starts nbdkit as server i, with arguments separated by blanks; waits until it
 * answers.  It dies with the test.
 */
static KTAP_UNUSED void server_start(unsigned int i, const char *args)
{
	struct server *s = &servers[i];
	static bool registered;
	char *argv[40] = { (char *)"nbdkit", (char *)"-f", (char *)"-U",
			   s->socket };
	char *copy = strdup(args), *word, *rest;
	unsigned int n = 4, tries;
	int log;

	if (!registered)
		ASSERT_EQ(atexit(servers_kill), 0);
	registered = true;
	ASSERT_LT(i, SERVERS_MAX);
	if (args != s->args)
		snprintf(s->args, sizeof(s->args), "%s", args);
	/* Of the scratch folder, in which tests are: a short name. */
	snprintf(s->socket, sizeof(s->socket), "s%u", i % 10);
	snprintf(s->uri, sizeof(s->uri), "nbd+unix:///?socket=s%u", i % 10);
	for (word = strtok_r(copy, " ", &rest); word && n < 39;
	     word = strtok_r(NULL, " ", &rest))
		argv[n++] = word;
	unlink(s->socket);
	s->pid = fork();
	if (!s->pid) {
		log = open("servers.log", O_WRONLY | O_CREAT | O_APPEND, 0666);
		dup2(log, 2);
		execvp("nbdkit", argv);
		_exit(127);
	}
	free(copy);
	for (tries = 0; !answers(s->socket); tries++) {
		ASSERT_LT(tries, 1000);
		ASSERT_EQ(waitpid(s->pid, NULL, WNOHANG), 0);
		sleep_ms(10);
	}
}

/* All its threads stand still when this returns: the signal alone takes its time. */
static KTAP_UNUSED void server_stop(unsigned int i)
{
	int status;

	ASSERT_EQ(kill(servers[i].pid, SIGSTOP), 0);
	ASSERT_EQ(waitpid(servers[i].pid, &status, WUNTRACED), servers[i].pid);
	ASSERT_TRUE(WIFSTOPPED(status));
}

/*
 * nbdkit 1.32 may fail an assertion of its own (raw_send_socket) where a client
 * leaves with requests in flight: one more server that is killed and comes back.
 */
static KTAP_UNUSED void servers_mend(void)
{
	unsigned int i;

	for (i = 0; i < SERVERS_MAX; i++)
		if (servers[i].pid > 0 &&
		    waitpid(servers[i].pid, NULL, WNOHANG) == servers[i].pid)
			server_start(i, servers[i].args);
}

/* A field of u64 in the place of the scratch folder, over nr servers. */
static KTAP_UNUSED void make_remote(const char *path, enum mmnf_dtype dtype,
				    unsigned int ndim, const uint64_t *shape,
				    unsigned int nr, uint64_t stripe_bytes)
{
	MMNF_OPTS(mmnf_create_opts, opts);
	const char *uris[SERVERS_MAX];
	unsigned int i;

	for (i = 0; i < nr; i++)
		uris[i] = servers[i].uri;
	opts.net = uris;
	opts.nr_net = nr;
	opts.stripe_bytes = stripe_bytes;
	ASSERT_EQ(mmnf_field_create(path, dtype, ndim, shape, &opts), 0);
}

static KTAP_UNUSED struct mmnf_net_stats server_stats(struct mmnf_field *field,
						      unsigned int i)
{
	MMNF_OPTS(mmnf_net_stats, stats);

	ASSERT_EQ(mmnf_net_stats(field, i, &stats), 0);
	return stats;
}

/* What `pattern` has at element `index` of u64 behind a stripe set. */
static KTAP_UNUSED uint64_t pattern(uint64_t index, unsigned int nr,
				    uint64_t stripe)
{
	uint64_t at = index * 8;

	if (nr > 1)
		at = at / stripe / nr * stripe + at % stripe;
	return __builtin_bswap64(at);
}

/* The persistent cache's. */
static KTAP_UNUSED struct mmnf_tier ssd_tier(struct mmnf_field *field)
{
	MMNF_OPTS(mmnf_tiers, tiers);
	uint32_t i;

	ASSERT_EQ(mmnf_tiers_info(field, &tiers), 0);
	for (i = 0; i < tiers.nr_tiers; i++)
		if (tiers.tier[i].level == 3)
			return tiers.tier[i];
	ASSERT_TRUE(false);
	return tiers.tier[0];
}

static KTAP_UNUSED const char slow_server[] =
	"#!/bin/sh\n"
	"cd %s\n"
	"case $1 in\n"
	"get_size) stat -c %%s server.img ;;\n"
	"thread_model) echo parallel ;;\n"
	"can_write|can_flush) exit 0 ;;\n"
	"can_trim|can_zero) exit 3 ;;\n"
	"flush) sync server.img ;;\n"
	"pread) dd if=server.img skip=$4 count=$3 iflag=skip_bytes,count_bytes status=none ;;\n"
	"pwrite) t=$(mktemp ./w.XXXXXX); cat >$t; late=\n"
	"	if [ \"$(head -c1 $t)\" = A ] && mkdir once 2>/dev/null; then\n"
	"		touch asleep; sleep %d; late=landed\n"
	"	fi\n"
	"	dd if=$t of=server.img seek=$4 conv=notrunc oflag=seek_bytes status=none\n"
	"	rm $t; [ -z \"$late\" ] || touch $late ;;\n"
	"*) exit 2 ;;\n"
	"esac\n";

/*
 * Server 0 of the file server.img: the first write that begins with A takes so long,
 * and is done then, whatever has become of its connection.  Then there is a file
 * "landed".
 */
static KTAP_UNUSED void server_start_slow(int seconds, const char *filter)
{
	char text[2048], args[512];

	snprintf(text, sizeof(text), slow_server, scratch_path, seconds);
	put_file("server.sh", text, strlen(text));
	ASSERT_EQ(chmod("server.sh", 0700), 0);
	snprintf(args, sizeof(args), "%s sh ./server.sh %s",
		 filter[0] ? "--filter=blocksize-policy" : "", filter);
	server_start(0, args);
}

#endif
